//! The OpenAPI document says what is served, and what is served is what it says.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use std::{
    collections::HashSet,
    io::{Read, Write},
    time::Duration,
};

use common::{Answer, Heard, Server};
use demo::VisitorLimits;
use serde_json::{Value, json};

/// Asserts that an answer is one that the document has for this operation.
fn matches(document: &Value, method: &str, path: &str, answer: &Answer) {
    let status = answer.status.to_string();
    let response = &document["paths"][path][method]["responses"][&status];
    assert!(response.is_object(), "{method} {path}: {status} is not in the document");
    let kind = answer
        .head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned))
        .unwrap();
    let kind = kind.split(';').next().unwrap();
    let content = &response["content"][kind];
    assert!(content.is_object(), "{method} {path}: {status} with {kind} is not in the document: {response}");
    for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name.to_lowercase()) {
        assert!(
            answer.head.to_lowercase().contains(&format!("\n{name}: ")),
            "{method} {path}: {status} without {name}"
        );
    }
    if kind == "audio/midi" {
        let name = content["schema"]["$ref"].as_str().unwrap();
        let schema = document.pointer(name.trim_start_matches('#')).unwrap();
        assert_eq!((&schema["type"], &schema["format"]), (&json!("string"), &json!("binary")));
    }
    if kind == "application/json" {
        fits(document, &content["schema"], &answer.json(), &format!("{method} {path}: {status}"));
    }
}

/// Asserts that a value has what a schema asks for, and nothing that it does not know.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{place}: no {name}"));
        return fits(document, schema, value, place);
    }
    if let Some(choices) = schema["enum"].as_array() {
        return assert!(choices.contains(value), "{place}: {value} is none of {choices:?}");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    let number = kind == "integer" && allowed.contains(&json!("number"));
    assert!(number || allowed.contains(&json!(kind)), "{place}: {kind} and not {allowed:?}");
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, &schema["items"], item, &format!("{place}[{at}]"));
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(fields.contains_key(name), "{place}: no {name}");
        }
        for (name, field) in fields {
            let known = &schema["properties"][name];
            assert!(known.is_object(), "{place}: {name} is not in the document");
            fits(document, known, field, &format!("{place}.{name}"));
        }
    }
}

#[test]
fn every_operation_answers_as_documented() {
    let mut server = Server::new();
    let document = server.get("/openapi.json").json();
    assert_eq!(document, serde_json::to_value(demo::openapi()).unwrap());
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));

    let wanted = json!({ "seed": 2, "top_k": 1, "max_patches": 100, "prompt": ["Baroque"] });
    let added = server.post("/api/pieces", &wanted);
    let id = added.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(Heard::of(server.events(&id, "")).end, "finished");
    let abc = server.get(&format!("/api/pieces/{id}/abc"));
    let stopped = server.compose(&json!({ "top_k": 1, "seed": 3 }));
    // At once: the small network is quick.
    let stop = server.post(&format!("/api/pieces/{stopped}/stop"), &json!({}));
    let at = |path: &str| path.replace("{id}", &id);
    #[rustfmt::skip]
    let mut seen: Vec<(&str, &str, Answer)> = vec![
        ("post", "/api/pieces", added),
        ("post", "/api/pieces", server.post("/api/pieces", &json!({ "seed": "x" }))),
        ("post", "/api/pieces", server.post("/api/pieces", &json!({ "music": "x" }))),
        ("get", "/healthz", server.get("/healthz")),
        ("get", "/api/model", server.get("/api/model")),
        ("get", "/api/pieces/{id}", server.get(&at("/api/pieces/{id}"))),
        ("get", "/api/pieces/{id}", server.get("/api/pieces/none")),
        ("get", "/api/pieces/{id}/events", server.get(&at("/api/pieces/{id}/events"))),
        ("get", "/api/pieces/{id}/{form}", server.get(&at("/api/pieces/{id}/midi"))),
        ("get", "/api/pieces/{id}/{form}", server.get(&at("/api/pieces/{id}/musicxml"))),
        ("get", "/api/pieces/{id}/{form}", server.get(&at("/api/pieces/{id}/times"))),
        ("get", "/api/pieces/{id}/{form}", server.get("/api/pieces/%ff/midi")),
        ("get", "/api/pieces/{id}/{form}", abc),
        ("get", "/api/pieces/{id}/{form}", server.get(&at("/api/pieces/{id}/jpeg"))),
        ("post", "/api/pieces/{id}/stop", server.post(&at("/api/pieces/{id}/stop"), &json!({}))),
        ("post", "/api/pieces/{id}/stop", stop),
        ("post", "/api/pieces/{id}/resume", server.post(&at("/api/pieces/{id}/resume"), &json!({}))),
        ("post", "/api/scores", server.ask("POST", "/api/scores?name=a.abc", &[], b"X:1\nL:1/8\nM:2/4\nK:C\ncdef|]\n")),
        ("post", "/api/scores", server.ask("POST", "/api/scores?name=a.abc", &[], b"nothing")),
    ];
    for (method, path) in [
        ("get", "/healthz"),
        ("get", "/api/model"),
        ("post", "/api/pieces"),
        ("get", "/api/pieces/{id}"),
        ("get", "/api/pieces/{id}/events"),
        ("get", "/api/pieces/{id}/{form}"),
        ("post", "/api/pieces/{id}/stop"),
        ("post", "/api/pieces/{id}/resume"),
        ("post", "/api/scores"),
        ("post", "/api/convert"),
    ] {
        let stranger = server.ask(&method.to_uppercase(), &at(path), &["Host: example.com"], b"");
        assert_eq!(stranger.status, 403, "{method} {path}");
        seen.push((method, path, stranger));
        if path.contains("{id}") {
            seen.push((method, path, server.ask(&method.to_uppercase(), &path.replace("{id}", "%ff"), &[], b"")));
        }
    }
    for to in ["abc", "musicxml", "midi", "times", "pdf"] {
        seen.push((
            "post",
            "/api/convert",
            server.ask("POST", &format!("/api/convert?to={to}"), &[], b"X:1\nL:1/8\nM:2/4\nK:C\ncdef|]\n"),
        ));
    }
    assert_eq!(Heard::of(server.events(&stopped, "")).end, "stopped");
    seen.push(("post", "/api/pieces/{id}/resume", server.post(&format!("/api/pieces/{stopped}/resume"), &json!({}))));
    for (method, path, answer) in &seen {
        matches(&document, method, path, answer);
    }
    let tried: HashSet<String> = seen.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "put", "delete", "patch"].contains(&key.as_str()))
        {
            assert!(tried.contains(&format!("{method} {path}")), "{method} {path} is documented and not tried");
        }
    }
    server.stop().unwrap();
}

#[test]
fn what_is_full_or_too_slow_answers_as_documented() {
    let document = serde_json::to_value(demo::openapi()).unwrap();
    let limits =
        VisitorLimits { at_once: 1, queue: 0, io_timeout: Duration::from_millis(400), ..VisitorLimits::default() };
    let server = Server::with(limits, Vec::new());
    let long = json!({ "seed": 1, "top_k": 1, "max_patches": 100_000 });
    let full = loop {
        let answer = server.post("/api/pieces", &long);
        if answer.status != 201 && answer.status != 408 {
            break answer;
        }
    };
    assert_eq!(full.status, 503, "{}", full.text());
    matches(&document, "post", "/api/pieces", &full);
    // A part of the body alone.
    let mut stream = server.connect();
    let head = format!("Host: {}\r\nContent-Type: application/json\r\nContent-Length: 100", server.address);
    write!(stream, "POST /api/pieces HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n{{").unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let slow = Answer::parse(&bytes);
    assert_eq!(slow.status, 408, "{}", slow.text());
    matches(&document, "post", "/api/pieces", &slow);
}

#[test]
fn the_page_is_served_and_says_what_its_build_lacks() {
    let server = Server::new();
    let page = server.get("/");
    assert!(page.status == 200 && page.text().contains("<main>") && page.head.contains("content-security-policy"));
    for file in ["style.css", "main.js", "api.js", "form.js", "link.js", "player.js", "sheet.js", "icon.svg"] {
        assert_eq!(server.get(&format!("/{file}")).status, 200, "{file}");
    }
    // Nothing that the page loads is elsewhere.
    for file in ["", "style.css", "main.js", "api.js", "form.js", "link.js", "player.js", "sheet.js"] {
        let text = server.get(&format!("/{file}")).text().replace("http://www.w3.org/", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{file}");
    }
    let missing = server.get("/api/model").json()["missing"].as_array().unwrap().len();
    let bundled = server.get("/engraver.js").status == 200;
    assert_eq!((missing == 0, server.logged("warning").len()), (bundled, missing));
}
