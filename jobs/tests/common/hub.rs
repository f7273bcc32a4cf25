//! A server on this machine that speaks the hub's protocol, and misbehaves when asked to.
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use sha2::{Digest, Sha256};

use super::Workplace;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does.
#[derive(Default)]
pub struct Behaviour {
    /// Contents by `owner/repo/file`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The SHA-256 to claim, whatever the contents.
    pub claims: Option<String>,
    /// Of the next answers with contents: bytes to send before the connection is cut.
    pub cuts: Vec<usize>,
    /// Of the next answers with contents: bytes to send before nothing comes any more.
    pub stalls: Vec<usize>,
    /// Statuses of the next answers, and headers that go with them.
    pub refusals: Vec<(u16, &'static str)>,
    /// The token that is asked for.
    pub token: Option<&'static str>,
    /// Send contents whole, whatever range is asked for.
    pub without_ranges: bool,
    /// Send a relative redirection first, as the hub does for a renamed account.
    pub renamed: bool,
    /// Have contents fetched from another host, which wants no token.
    pub elsewhere: bool,
    /// The requests so far: method, path, range, and whether with a token.
    pub requests: Vec<Request>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

pub struct LocalHub {
    address: SocketAddr,
    state: Arc<Mutex<Behaviour>>,
}

impl LocalHub {
    pub fn new(behaviour: Behaviour) -> LocalHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(behaviour));
        let shared = Arc::clone(&state);
        // Ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &shared, address.port()));
            }
        });
        LocalHub { address, state }
    }

    /// With one file.
    pub fn of(name: &str, contents: &[u8], mut behaviour: Behaviour) -> LocalHub {
        behaviour.files.insert(name.to_owned(), contents.to_vec());
        LocalHub::new(behaviour)
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

/// Nothing of the user's own settings, the cache in the workplace.
pub fn isolated(command: &mut Command, workplace: &Workplace, endpoint: &str) {
    for (name, _) in std::env::vars() {
        let name_in_small = name.to_ascii_lowercase();
        if name.starts_with("HF_") || name_in_small.ends_with("_proxy") || name.ends_with("_OFFLINE") {
            command.env_remove(name);
        }
    }
    command.env("HF_HOME", workplace.path("hf")).env("HF_ENDPOINT", endpoint);
}

pub fn sha256(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(stream: TcpStream, state: &Mutex<Behaviour>, port: u16) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let header = |name: &str| headers.get(name).cloned();
    let request = Request {
        host: header("host")?,
        range: header("range"),
        authorization: header("authorization"),
        method: method.clone(),
        path: path.clone(),
    };
    let mut state = state.lock().ok()?;
    state.requests.push(request.clone());
    let mut out = Out(stream);
    if !state.refusals.is_empty() {
        let (status, header) = state.refusals.remove(0);
        return out.head(status, &[header.to_owned(), "Content-Length: 0".to_owned()]);
    }
    let from_elsewhere = path.starts_with("/elsewhere/");
    if from_elsewhere && request.authorization.is_some() {
        return out.refuse(400, "");
    }
    let wanted = state.token.map(|token| format!("Bearer {token}"));
    if !from_elsewhere && wanted.is_some() && wanted != request.authorization {
        return out.refuse(401, if request.authorization.is_none() { "RepoNotFound" } else { "" });
    }
    if let Some(repository) = path.strip_prefix("/api/models/").and_then(|path| path.strip_suffix("/revision/main")) {
        let names = state.files.keys().filter_map(|name| name.strip_prefix(repository)?.strip_prefix('/'));
        let siblings: Vec<_> = names.map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "id": repository, "siblings": siblings }).to_string();
        out.head(200, &[format!("Content-Length: {}", body.len())])?;
        return out.0.write_all(body.as_bytes()).ok();
    }
    if state.renamed {
        state.renamed = false;
        return out.head(307, &[format!("Location: {path}?again"), "Content-Length: 0".to_owned()]);
    }
    let path = path.trim_start_matches("/elsewhere").trim_end_matches("?again").replacen("/resolve/main/", "/", 1);
    let path = path.replacen(&format!("/resolve/{COMMIT}/"), "/", 1);
    let name = path.trim_start_matches('/');
    let Some(contents) = state.files.get(name).cloned() else {
        let repository = name.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        let known = state.files.keys().any(|name| name.starts_with(&format!("{repository}/")));
        return out.refuse(if known { 404 } else { 401 }, if known { "EntryNotFound" } else { "RepoNotFound" });
    };
    let etag = state.claims.clone().unwrap_or_else(|| sha256(&contents));
    let mut head = vec![
        format!("X-Repo-Commit: {COMMIT}"),
        format!("X-Linked-Etag: \"{etag}\""),
        format!("X-Linked-Size: {}", contents.len()),
        "Accept-Ranges: bytes".to_owned(),
    ];
    if state.elsewhere && !from_elsewhere {
        // Another name of this machine: to a client another host.
        head.push(format!("Location: http://localhost:{port}/elsewhere{path}"));
        head.push("Content-Length: 0".to_owned());
        return out.head(302, &head);
    }
    head.push(format!("ETag: \"{etag}\""));
    let start = request.range.as_ref().filter(|_| !state.without_ranges).and_then(|range| {
        let (start, _) = range.strip_prefix("bytes=")?.split_once('-')?;
        start.parse::<usize>().ok()
    });
    let body = &contents[start.unwrap_or(0).min(contents.len())..];
    if let Some(start) = start {
        head.push(format!("Content-Range: bytes {start}-{}/{}", contents.len() - 1, contents.len()));
    }
    head.push(format!("Content-Length: {}", body.len()));
    let take = |list: &mut Vec<usize>| (method == "GET" && !list.is_empty()).then(|| list.remove(0));
    let (cut, stall) = (take(&mut state.cuts), take(&mut state.stalls));
    drop(state);
    out.head(if start.is_some() { 206 } else { 200 }, &head)?;
    if method == "HEAD" {
        return Some(());
    }
    out.0.write_all(&body[..cut.or(stall).unwrap_or(body.len()).min(body.len())]).ok()?;
    if stall.is_some() {
        // Until the client gives up.
        let _ = std::io::copy(&mut out.0.try_clone().ok()?, &mut std::io::sink());
    }
    Some(())
}

struct Out(TcpStream);

impl Out {
    fn head(&mut self, status: u16, headers: &[String]) -> Option<()> {
        let lines: String = headers.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
        let text = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n{lines}\r\n");
        self.0.write_all(text.as_bytes()).ok()
    }

    fn refuse(&mut self, status: u16, code: &str) -> Option<()> {
        let code = if code.is_empty() { String::new() } else { format!("X-Error-Code: {code}") };
        self.head(status, &[code, "Content-Length: 0".to_owned()])
    }
}
