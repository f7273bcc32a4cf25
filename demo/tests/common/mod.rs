//! A server with a small trained network, and a plain HTTP client.
#![allow(dead_code)]
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use demo::{Config, Error, LogLine, VisitorLimits};
use model::generate::Generator;
use serde_json::Value;
use tch::{Device, Kind};

/// A network that writes small chorales.
pub fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/greedy.pth")
}

pub fn generator() -> Generator {
    tch::set_num_threads(1);
    Generator::new(&model::weights::load(&weights(), Device::Cpu).unwrap(), Kind::Float).unwrap()
}

pub struct Server {
    pub address: SocketAddr,
    pub lines: Arc<Mutex<Vec<LogLine>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Server {
    pub fn new() -> Server {
        Server::with(VisitorLimits { at_once: 3, ..VisitorLimits::default() }, Vec::new())
    }

    pub fn with(limits: VisitorLimits, prompts: Vec<String>) -> Server {
        let config = Config {
            weights: "greedy.pth".to_owned(),
            sha256: "00ff".repeat(16),
            prompts,
            host: [127, 0, 0, 1].into(),
            port: 0,
            limits,
        };
        let (lines, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (sender, receiver) = mpsc::channel();
        let (log, told) = (Arc::clone(&lines), Mutex::new(sender));
        let log = move |line: &LogLine| {
            if let Some(address) = line.fields["address"].as_str().filter(|_| line.event == "listening") {
                told.lock().unwrap().send(address.parse().unwrap()).unwrap();
            }
            log.lock().unwrap().push(line.clone());
        };
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || demo::serve(config, generator(), &stopping, Arc::new(log)));
        let address = receiver.recv_timeout(Duration::from_secs(120)).unwrap();
        Server { address, lines, stop, thread: Some(thread) }
    }

    /// Ends it, as a signal does.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// HTTP 1.0: the answer ends with the connection.
    fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let host = if headers.iter().any(|header| header.starts_with("Host:")) {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.0\r\n{host}{headers}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // A server that has refused need not read on.
        let _ = stream.write_all(body);
        stream
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut bytes = Vec::new();
        let read = self.send(method, path, headers, body).read_to_end(&mut bytes);
        assert!(read.is_ok() || !bytes.is_empty(), "{method} {path}: {read:?}");
        Answer::parse(&bytes)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &["Content-Type: application/json"], body.to_string().as_bytes())
    }

    /// Asks for a piece.
    pub fn compose(&self, wanted: &Value) -> String {
        let answer = self.post("/api/pieces", wanted);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The events of a piece, from `after` on.
    pub fn events(&self, id: &str, after: &str) -> Events {
        let stream = self.send("GET", &format!("/api/pieces/{id}/events"), &[&format!("Last-Event-ID: {after}")], b"");
        Events { lines: BufReader::new(stream), last: String::new() }
    }

    /// The lines of an event.
    pub fn logged(&self, event: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.event == event).map(|line| line.message.clone()).collect()
    }
}

impl Drop for Server {
    /// Waits for the thread that writes: inside libtorch while the process ends it would crash.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that fails already says why.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head, body: bytes[(end + 4).min(bytes.len())..].to_vec() }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.head, self.text()))
    }
}

/// The events of a piece as they come.
pub struct Events {
    lines: BufReader<TcpStream>,
    /// The id of the last one.
    pub last: String,
}

impl Iterator for Events {
    type Item = (String, Value);

    fn next(&mut self) -> Option<(String, Value)> {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => name = text.to_owned(),
                Some(("data", text)) => data = text.to_owned(),
                Some(("id", text)) => self.last = text.to_owned(),
                _ if line.trim().is_empty() && !data.is_empty() => {
                    return Some((name, serde_json::from_str(&data).unwrap()));
                }
                _ => {}
            }
        }
    }
}

/// What a piece's events say, put together.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Heard {
    pub text: String,
    pub header: String,
    pub bars: Vec<String>,
    pub queued: Vec<u64>,
    pub attempts: u64,
    /// The last event.
    pub end: String,
}

impl Heard {
    pub fn add(&mut self, name: &str, data: &Value) {
        match name {
            "began" => {
                (self.attempts, self.text) =
                    (data["attempt"].as_u64().unwrap(), data["text"].as_str().unwrap().to_owned());
                self.bars.clear();
            }
            "text" => self.text += data["text"].as_str().unwrap(),
            "music" => {
                assert_eq!(data["first"].as_u64().unwrap() as usize, self.bars.len());
                self.header = data["header"].as_str().unwrap().to_owned();
                self.bars.extend(data["bars"].as_array().unwrap().iter().map(|bar| bar.as_str().unwrap().to_owned()));
            }
            "queued" => self.queued.push(data["ahead"].as_u64().unwrap()),
            _ => self.end = name.to_owned(),
        }
    }

    pub fn of(events: Events) -> Heard {
        let mut heard = Heard::default();
        for (name, data) in events {
            heard.add(&name, &data);
        }
        heard
    }
}
