//! Pieces of visitors: written, followed, stopped, gone on with, and always the ones that seed and settings name.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use std::ops::ControlFlow;

use common::{Heard, Server, generator};
use demo::VisitorLimits;
use model::{
    generate::{GenerationEvent, Options, Start},
    sampling::Sampling,
};
use serde_json::{Value, json};

/// A piece that is complete after a few dozen bars.
fn wanted(seed: u64) -> Value {
    json!({ "seed": seed, "top_k": 3, "temperature": 0.7, "max_patches": 150 })
}

/// What `generate` writes with these settings.
fn alone(seed: u64, starts: Vec<Start>) -> String {
    let options = Options {
        batch_size: Some(1),
        seed,
        sampling: Sampling { top_k: 3, top_p: 0.9, temperature: 0.7 },
        max_patches: Some(150),
        max_attempts: 3,
        starts,
        check: &model::generate::check,
        ..Options::default()
    };
    let mut text = String::new();
    let keep = &mut |event: GenerationEvent| {
        if let GenerationEvent::Finished(piece) = event {
            text = piece.text.clone();
        }
        ControlFlow::Continue(())
    };
    generator().run(&options, keep).unwrap();
    text
}

#[test]
fn visitors_at_once_get_the_pieces_that_their_seeds_name_and_wait_in_turn() {
    let server = Server::with(VisitorLimits { at_once: 2, ..VisitorLimits::default() }, Vec::new());
    let ids: Vec<String> = (0..5).map(|seed| server.compose(&wanted(seed))).collect();
    let heard: Vec<Heard> = ids.iter().map(|id| Heard::of(server.events(id, ""))).collect();
    for (seed, (heard, id)) in heard.iter().zip(&ids).enumerate() {
        assert_eq!((heard.end.as_str(), &heard.text), ("finished", &alone(seed as u64, Vec::new())), "seed {seed}");
        assert!(heard.bars.len() > 3 && heard.bars.iter().all(|bar| bar.starts_with("[V:1]")), "{heard:?}");
        let shown = server.get(&format!("/api/pieces/{id}")).json();
        assert_eq!(
            (&shown["status"], &shown["text"], &shown["settings"]["seed"]),
            (&json!("finished"), &json!(heard.text), &json!(seed))
        );
        assert_eq!(shown["abc"], format!("X:1\n{}{}\n", heard.header, heard.bars.join("\n")));
    }
    let waited = server.logged("queued").len();
    assert_eq!((waited, server.logged("finished").len()), (5, 5));
    let busy = server.get("/healthz").json();
    assert_eq!((&busy["status"], &busy["writing"], &busy["queued"]), (&json!("ok"), &json!(0), &json!(0)));
}

#[test]
fn a_place_in_the_queue_is_told_and_becomes_better() {
    let server = Server::with(VisitorLimits { at_once: 1, ..VisitorLimits::default() }, Vec::new());
    let ids: Vec<String> = (0..3).map(|seed| server.compose(&wanted(seed))).collect();
    let last = Heard::of(server.events(&ids[2], ""));
    assert_eq!(last.end, "finished");
    // Two are before it until the first is in the batch.
    assert!(matches!(last.queued.first(), Some(1 | 2)), "{:?}", last.queued);
    assert!(last.queued.is_sorted_by(|a, b| a >= b) && last.queued.last() == Some(&0), "{:?}", last.queued);
}

#[test]
fn a_piece_that_is_stopped_and_goes_on_is_the_same() {
    let server = Server::new();
    let (id, mut heard, place) = loop {
        let id = server.compose(&wanted(7));
        let mut heard = Heard::default();
        let mut events = server.events(&id, "");
        for (name, data) in &mut events {
            heard.add(&name, &data);
            if heard.text.len() > 300 {
                break;
            }
        }
        // On a busy machine it may be over before it is stopped: then another one.
        if server.post(&format!("/api/pieces/{id}/stop"), &json!({})).status == 202 {
            break (id, heard, events.last.clone());
        }
    };
    let mut stopped = heard.clone();
    for (name, data) in server.events(&id, &place) {
        stopped.add(&name, &data);
    }
    assert_eq!(stopped.end, "stopped");
    let shown = server.get(&format!("/api/pieces/{id}")).json();
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("stopped"), &json!("stopped by its visitor")));
    assert_eq!(shown["text"], stopped.text);
    assert_eq!(server.post(&format!("/api/pieces/{id}/stop"), &json!({})).status, 409);
    // What there is can be kept.
    assert!(server.get(&format!("/api/pieces/{id}/musicxml")).text().contains("<score-partwise"));

    assert_eq!(server.post(&format!("/api/pieces/{id}/resume"), &json!({})).status, 202);
    for (name, data) in server.events(&id, &place) {
        heard.add(&name, &data);
    }
    assert_eq!((heard.end.as_str(), heard.text), ("finished", alone(7, Vec::new())));
    assert_eq!(server.post(&format!("/api/pieces/{id}/resume"), &json!({})).status, 409);
}

#[test]
fn a_waiting_piece_can_be_stopped_and_a_full_queue_says_so() {
    let server = Server::with(VisitorLimits { at_once: 1, queue: 1, ..VisitorLimits::default() }, Vec::new());
    let long = json!({ "seed": 1, "top_k": 1, "max_patches": 100_000 });
    // One is being written and one waits, whichever these are by now.
    let mut waiting = String::new();
    let full = loop {
        let answer = server.post("/api/pieces", &long);
        if answer.status != 201 {
            break answer;
        }
        waiting = answer.json()["id"].as_str().unwrap().to_owned();
    };
    assert_eq!(full.status, 503, "{}", full.text());
    assert!(full.json()["message"].as_str().unwrap().contains("waiting already"), "{}", full.text());
    assert!(full.head.to_lowercase().contains("retry-after: 60"), "{}", full.head);
    assert!(server.post(&format!("/api/pieces/{waiting}/stop"), &json!({})).status == 202);
    assert_eq!(Heard::of(server.events(&waiting, "")).end, "stopped");
    assert_eq!(server.post("/api/pieces", &long).status, 201);
}

#[test]
fn a_score_is_gone_on_from_and_a_prompt_stands_before_it() {
    let server = Server::new();
    let music = alone(3, Vec::new());
    let music = &music[..music.match_indices('\n').nth(12).unwrap().0 + 1];
    let answer = server.ask("POST", "/api/scores?name=my%20piece.abc", &[], music.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((&answer.json()["music"], &answer.json()["voices"]), (&json!(music), &json!(4)));

    let mut wanted = wanted(9);
    (wanted["music"], wanted["prompt"]) = (json!(music), json!(["Baroque", "Chorale"]));
    let heard = Heard::of(server.events(&server.compose(&wanted), ""));
    let prompt = vec!["%Baroque\n".to_owned(), "%Chorale\n".to_owned()];
    assert_eq!(heard.text, alone(9, vec![Start { prompt, music: Some(music.to_owned()) }]));
    assert!(heard.text.len() > music.len() + 200 && heard.header.starts_with("%Baroque\n%Chorale\n%%score"));
}

#[test]
fn what_was_written_comes_in_all_forms() {
    let server = Server::new();
    let id = server.compose(&wanted(2));
    let heard = Heard::of(server.events(&id, ""));
    let form = |form: &str| server.get(&format!("/api/pieces/{id}/{form}"));
    let abc = form("abc");
    assert!(abc.text().starts_with("X:1\n") && abc.head.contains("filename=\"notagen-2.abc\""), "{}", abc.head);
    assert!(form("midi").body.starts_with(b"MThd"));
    assert!(form("musicxml").text().contains("<score-partwise"));
    let times = form("times").json();
    assert_eq!(times["bars"][0], json!({ "bar": 0, "seconds": 0.0 }));
    assert!(times["bars"].as_array().unwrap().len() >= heard.bars.len());
    assert_eq!(form("pdf").status, 404);
    for to in ["musicxml", "midi", "times"] {
        let converted = server.ask("POST", &format!("/api/convert?to={to}"), &[], &abc.body);
        assert_eq!((converted.status, &converted.body), (200, &form(to).body), "{to}");
    }
}

#[test]
fn only_the_choices_are_taken_where_there_are_choices() {
    let prompts =
        vec!["Baroque_Bach, Johann Sebastian_Choral".to_owned(), "Romantic_Chopin, Frederic_Keyboard".to_owned()];
    let server = Server::with(VisitorLimits::default(), prompts);
    let model = server.get("/api/model").json();
    assert_eq!(model["periods"][1]["composers"][0]["instrumentations"], json!(["Keyboard"]));
    let ask = |prompt: Value| server.post("/api/pieces", &json!({ "prompt": prompt, "max_patches": 2 }));
    assert_eq!(ask(json!(["Baroque", "Bach, Johann Sebastian", "Choral"])).status, 201);
    assert_eq!(ask(json!([])).status, 201);
    let wrong = ask(json!(["Baroque", "Bach", "Choral"]));
    assert_eq!(
        (wrong.status, wrong.json()["hint"].as_str().unwrap()),
        (400, "did you mean \"Baroque_Bach, Johann Sebastian_Choral\"?")
    );
    assert_eq!(ask(json!(["Romantic", "Bach, Johann Sebastian", "Choral"])).status, 400);
}

#[test]
fn who_follows_when_the_server_ends_is_told() {
    let mut server = Server::with(VisitorLimits { at_once: 1, ..VisitorLimits::default() }, Vec::new());
    // With so many before it the last is not over when the server ends.
    let ids: Vec<String> = (0..24).map(|_| server.compose(&json!({ "prompt": [], "seed": 1, "top_k": 1 }))).collect();
    let mut events = server.events(&ids[23], "");
    assert!(events.any(|(name, _)| name == "queued"));
    server.stop().unwrap();
    assert_eq!(events.last().unwrap().0, "closed");
    assert_eq!(server.logged("closed"), ["stopped"]);
}
