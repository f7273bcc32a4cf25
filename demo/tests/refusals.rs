//! What is refused: with a message for people, a line in the log, and nothing else happening.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use common::{Answer, Server};
use demo::VisitorLimits;
use serde_json::json;

/// Method, path, headers and body; the status and a part of the message.
type Refused<'a> = (&'a str, &'a str, &'a [&'a str], &'a [u8], u16, &'a str);

const JSON: &str = "Content-Type: application/json";

#[test]
fn requests_that_make_no_sense_are_refused_and_logged() {
    let server = Server::with(VisitorLimits { at_once: 1, body: 20_000, ..VisitorLimits::default() }, Vec::new());
    let large = format!("{{\"music\": \"{}\"}}", "x".repeat(30_000));
    let lasting = format!("X:1\nL:1/1\nK:C\n{}\n", "c99|".repeat(4000));
    let long_name = format!("/api/scores?name={}", "x".repeat(300));
    #[rustfmt::skip]
    let refused: &[Refused] = &[
        ("GET", "/nothing", &[], b"", 404, "nothing here"),
        ("GET", "/../../etc/passwd", &[], b"", 404, "nothing here"),
        ("GET", "/..%2f..%2fetc%2fpasswd", &[], b"", 404, "nothing here"),
        ("GET", "/api/pieces/../../../etc/passwd", &[], b"", 404, "nothing here"),
        ("GET", "/api/pieces/0000", &[], b"", 404, "no such piece"),
        ("GET", "/api/pieces/%2e%2e%2f/events", &[], b"", 404, "no such piece"),
        ("GET", "/api/pieces/%ff", &[], b"", 400, "UTF-8"),
        ("GET", "/%ff", &[], b"", 400, "UTF-8"),
        ("DELETE", "/api/pieces", &[], b"", 405, "cannot be done"),
        ("POST", "/api/pieces", &[], b"{}", 415, "has to be JSON"),
        ("POST", "/api/pieces", &["Content-Type: text/plain"], b"{}", 415, "has to be JSON"),
        ("POST", "/api/pieces", &[JSON], b"{", 400, "EOF while parsing"),
        ("POST", "/api/pieces", &[JSON], b"{\n\"sede\": 1}", 400, "unknown field `sede`"),
        ("POST", "/api/pieces", &[JSON], b" [[], null, 3, 4, 0.9, 1.0, 5]", 400, "has to be an object"),
        ("POST", "/api/pieces", &[JSON], b"{\"seed\": -1}", 400, "invalid value"),
        ("POST", "/api/pieces", &[JSON], b"{\"seed\": 9007199254740992}", 400, "the largest is 9007199254740991"),
        ("POST", "/api/pieces", &[JSON], b"{\"top_p\": 0}", 400, "top_p is 0"),
        ("POST", "/api/pieces", &[JSON], b"{\"temperature\": 1e9}", 400, "temperature is 1000000000"),
        ("POST", "/api/pieces", &[JSON], b"{\"max_patches\": 0}", 400, "counted from 1"),
        ("POST", "/api/pieces", &[JSON], "{\"prompt\": [\"Fauré\"]}".as_bytes(), 400, "not printable ASCII"),
        ("POST", "/api/pieces", &[JSON], b"{\"prompt\": [\"a\\nK:C\"]}", 400, "not printable ASCII"),
        ("POST", "/api/pieces", &[JSON], b"{\"music\": \"hello\"}", 422, "not ABC"),
        ("POST", "/api/pieces", &[JSON], large.as_bytes(), 413, "larger than 19 KiB"),
        ("POST", "/api/pieces", &[JSON, "Origin: http://example.com"], b"{}", 403, "another site"),
        ("GET", "/", &["Host: example.com"], b"", 403, "another name"),
        ("POST", "/api/scores?name=../../etc/passwd", &[], b"X:1", 400, "not the name of a file"),
        ("POST", "/api/scores?name=..%2f..%2fetc%2fpasswd", &[], b"X:1", 400, "not the name of a file"),
        ("POST", "/api/scores?name=C:%5cscore.abc", &[], b"X:1", 400, "not the name of a file"),
        ("POST", "/api/scores?name=a%00.abc", &[], b"X:1", 400, "not the name of a file"),
        ("POST", "/api/scores?name=..", &[], b"X:1", 400, "not the name of a file"),
        ("POST", &long_name, &[], b"X:1", 400, "not the name of a file"),
        ("POST", "/api/convert?to=pdf", &[], b"X:1", 404, "abc, musicxml, midi"),
        ("POST", "/api/convert", &[], b"X:1", 400, "missing field `to`"),
        ("POST", "/api/convert?to=abc", &[], b"hello", 422, "line 1"),
        ("POST", "/api/convert?to=midi", &[], lasting.as_bytes(), 422, "too long for a MIDI file"),
        ("POST", "/api/convert?to=midi", &[], b"\xff\xfe", 400, "not UTF-8"),
    ];
    for (method, path, headers, body, status, message) in refused {
        let answer = server.ask(method, path, headers, body);
        let told = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(answer.status == *status && told.contains(message), "{method} {path}: {} {told}", answer.status);
        assert_eq!(told, told.trim());
        let logged = server.logged("refused").pop().unwrap();
        let shown: String = path.chars().take(100).collect();
        assert!(logged.contains(&told), "{logged}: {told}");
        assert!(logged.contains(&shown) && logged.contains(&status.to_string()) && !logged.contains('\n'), "{logged}");
    }
    assert_eq!(server.logged("refused").len(), refused.len());
    assert!(server.logged("queued").is_empty());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_length_that_is_not_announced_is_limited_too() {
    let server = Server::with(VisitorLimits { at_once: 1, body: 20_000, ..VisitorLimits::default() }, Vec::new());
    let mut stream = server.connect();
    let head = format!(
        "POST /api/scores HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    // The server may hang up before all is sent.
    for _ in 0..10 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert_eq!(Answer::parse(&bytes).status, 413);
}

#[test]
fn what_is_no_request_or_too_slow_a_one_is_cut_off_and_the_others_are_served() {
    let limits = VisitorLimits { at_once: 1, io_timeout: Duration::from_millis(400), ..VisitorLimits::default() };
    let server = Server::with(limits, Vec::new());
    let answer_to = |sent: &[u8]| {
        let mut stream = server.connect();
        stream.write_all(sent).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Answer::parse(&bytes)
    };
    thread::scope(|scope| {
        // Each hangs until it is cut off, all at once.
        let slow: Vec<_> = [
            "GET / HT".to_owned(),
            "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_owned(),
            format!(
                "POST /api/scores HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 100\r\n\r\nX:1",
                server.address
            ),
        ]
        .map(|sent| scope.spawn(move || answer_to(sent.as_bytes()).status))
        .into_iter()
        .collect();
        assert_eq!(answer_to(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n").status, 400);
        assert_eq!(server.get("/healthz").status, 200);
        let statuses: Vec<u16> = slow.into_iter().map(|slow| slow.join().unwrap()).collect();
        assert_eq!(statuses[2], 408, "{statuses:?}");
    });
    let logged = server.logged("refused").join("\n");
    for reason in ["it is not HTTP", "its head did not come in time", "408"] {
        assert!(logged.contains(reason), "{reason}: {logged}");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

/// ABC of so many quarters, a bar each.
fn quarters(count: usize) -> String {
    format!("X:1\nL:1/4\nM:1/4\nK:C\n{}\n", "c|".repeat(count))
}

#[test]
fn a_piece_that_would_fill_the_memory_is_refused() {
    let server = Server::new();
    let voices: String = (1..=100).map(|voice| format!("V:{voice}\n")).collect();
    let wide = format!("X:1\nL:1/4\nM:1/4\nK:C\n{voices}V:1\n{}\n", "c|".repeat(2100));
    for (piece, message) in [(quarters(300_000), "585 KiB of ABC"), (wide, "210000 notes and rests")] {
        for path in ["/api/convert?to=musicxml", "/api/scores?name=long.abc"] {
            let answer = server.ask("POST", path, &[], piece.as_bytes());
            assert!(answer.status == 422 && answer.text().contains(message), "{path}: {}", answer.text());
        }
    }
    let large = quarters(170_000);
    let large = server.ask("POST", "/api/convert?to=musicxml", &[], large.as_bytes());
    assert!(large.status == 422 && large.text().contains("more than 32 MiB"), "{}", large.text());
    assert_eq!(server.logged("refused").len(), 5);
}

/// Asks for MusicXML of many MiB, and reads the answer's first line alone.
fn read_a_line(server: &Server) -> (TcpStream, String) {
    let (piece, mut stream) = (quarters(100_000), server.connect());
    let head = format!("Host: {}\r\nContent-Length: {}", server.address, piece.len());
    write!(stream, "POST /api/convert?to=musicxml HTTP/1.1\r\n{head}\r\n\r\n{piece}").unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    (stream, String::from_utf8_lossy(&line).into_owned())
}

#[test]
fn answers_that_nobody_reads_fill_no_more_than_their_room() {
    let server =
        Server::with(VisitorLimits { io_timeout: Duration::from_secs(600), ..VisitorLimits::default() }, Vec::new());
    let mut slow = Vec::new();
    let last = loop {
        let (stream, line) = read_a_line(&server);
        if line != "HTTP/1.1 200" || slow.len() > 128 {
            break line;
        }
        slow.push(stream);
    };
    assert!(last == "HTTP/1.1 503" && slow.len() > 2, "{last} after {}", slow.len());
    // Others are served again when those have gone.
    drop(slow);
    while read_a_line(&server).1 != "HTTP/1.1 200" {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_reader_who_takes_nothing_is_given_up() {
    let server =
        Server::with(VisitorLimits { io_timeout: Duration::from_secs(3), ..VisitorLimits::default() }, Vec::new());
    let (mut stream, line) = read_a_line(&server);
    assert_eq!(line, "HTTP/1.1 200");
    while !server.logged("refused").iter().any(|line| line.contains("nothing was taken of an answer")) {
        thread::sleep(Duration::from_millis(50));
    }
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("</score-partwise>"));
}

const GOOD: &str = "X:1\nT:A tune\nL:1/8\nM:2/4\nK:C\nV:1 treble\nV:2 bass\nV:1\nc4 | d4 |]\nV:2\nC4 | G,4 |]\n";

/// The form that the network writes; some damage it.
const DAMAGED: &str = "X:1\n%%score 1 2\nL:1/8\nM:2/4\nK:C\nV:1 treble\nV:2 bass\n[V:1]c4|[V:2]C4|\n[V:1]d4|[V:2]D4|\n";

#[test]
fn scores_to_go_on_from_are_refused_with_the_line_that_is_wrong() {
    let server = Server::new();
    let upload = |name: &str, bytes: &[u8]| server.ask("POST", &format!("/api/scores?name={name}"), &[], bytes);
    let good = upload("good.abc", GOOD.as_bytes());
    assert_eq!(good.status, 200, "{}", good.text());
    assert_eq!(
        good.json()["music"],
        "%%score 1 2\nL:1/8\nM:2/4\nK:C\nV:1 treble\nV:2 bass\n[r:0/3][V:1]c4|[V:2]C4|\n[r:1/2][V:1]d4|]\u{5b}V:2]G,4|]\n",
    );
    // A tune as people write it, without voices.
    let plain = upload("tune.abc", b"X:1\nT:Tune\nM:2/4\nL:1/8\nK:D\nDEFG | A4 |]\n");
    assert_eq!((plain.status, &plain.json()["bars"]), (200, &json!(2)), "{}", plain.text());

    // What is odd is told.
    for (text, line) in [(DAMAGED.replace("C4", "C2"), 8), (GOOD.replace("C4", "C2"), 11)] {
        let odd = upload("odd.abc", text.as_bytes());
        let warnings = odd.json()["warnings"].to_string();
        assert!(warnings.contains(&format!("[\"line {line}: 1/4 long, not 1/2")), "{}", odd.text());
    }

    let wrong: &[(&str, String, u64, &str)] = &[
        ("chord.abc", GOOD.replace("C4 | G,4", "C4 | [G,C?]4"), 11, "something that is not a note"),
        ("bars.abc", GOOD.replace("C4 | G,4 |]", "C4 |]"), 11, "V:2 has 1 bars, V:1 has 2"),
        ("key.abc", GOOD.replace("K:C\n", "K:Hmixed\n"), 5, "unknown key"),
        ("voice.abc", GOOD.replace("V:2\nC4", "V:7\nC4"), 10, "V:7"),
        ("text.abc", "Dear diary,\nnothing today.\n".to_owned(), 1, "not ABC"),
        ("silence.abc", "X:1\nM:2/4\nL:1/8\nK:C\n\n".to_owned(), 4, "no music"),
        (
            "open.xml",
            "<?xml version=\"1.0\"?>\n<score-partwise>\n<part id=\"P1\">\n</score-partwise>\n".to_owned(),
            4,
            "",
        ),
        ("page.xml", "<html>\n<body/>\n</html>\n".to_owned(), 1, "not a score"),
        ("two.abc", DAMAGED.replace("[V:1]d4|", "[V:1]d4|e4|"), 9, "V:1 has two bars"),
        ("twice.abc", DAMAGED.replace("[V:1]c4|", "[V:1]c4|[V:1]e4|"), 8, "V:1 has two bars"),
        ("line.abc", DAMAGED.replace("d4|", "d4"), 9, "no bar for voice V:1"),
        ("own.abc", "L:1/8\nK:C\nV:one\n[V:1]c4|\n".to_owned(), 3, "V:one"),
    ];
    for (name, text, line, message) in wrong {
        let answer = upload(name, text.as_bytes());
        let told = answer.json();
        let said = told["message"].as_str().unwrap();
        assert!(answer.status == 422 && said.contains(message), "{name}: {} {told}", answer.status);
        assert_eq!(told["line"], json!(line), "{name}: {told}");
        assert!(said.contains(&format!("line {line}")), "{name}: {told}");
        assert!(server.logged("refused").pop().unwrap().contains(name));
    }
    assert_eq!(upload("bytes.abc", b"X:1\nK:C\n\xff\xfe\xfd|").json()["line"], 3);
    assert_eq!(upload("broken.mxl", b"PK\x03\x04 and so on").status, 422);
}
