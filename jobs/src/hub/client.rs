//! Requests to the hub, and what they come back with.
use std::io::{self, Read};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::reference::Reference;

/// Everything but what a path is made of.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
const REDIRECTS: u32 = 10;

/// Asks an endpoint for files.
#[derive(Debug)]
pub struct Client {
    pub endpoint: String,
    pub token: Option<String>,
    agent: Agent,
}

/// What the hub says about a file before it sends it.
#[derive(Debug, Clone)]
pub struct Metadata {
    pub commit: String,
    /// Of large files the SHA-256 of the contents.
    pub etag: String,
    pub size: Option<u64>,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Trouble {
    /// Nothing came back, or the connection broke.
    Network(String),
    Status {
        status: u16,
        /// The hub's own word for it: `EntryNotFound`, `RepoNotFound`, `RevisionNotFound`, `GatedRepo`.
        code: Option<String>,
        /// When to ask again.
        after: Option<Duration>,
    },
    /// An answer that is not of the hub's protocol.
    Answer(String),
}

impl Trouble {
    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Trouble::Network(_) | Trouble::Status { status: 408 | 429 | 500..=599, .. })
    }

    fn of(response: &Response<Body>) -> Trouble {
        let header = |name| text(response.headers(), name);
        let seconds = header("retry-after").and_then(|text| text.trim().parse().ok());
        Trouble::Status {
            status: response.status().as_u16(),
            code: header("x-error-code").map(str::to_owned),
            after: seconds.map(Duration::from_secs),
        }
    }
}

impl From<ureq::Error> for Trouble {
    fn from(error: ureq::Error) -> Trouble {
        Trouble::Network(error.to_string())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Network(error.to_string())
    }
}

impl Client {
    pub fn new(endpoint: &str, token: Option<String>, timeout: Duration) -> Client {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("notagen-train/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_per_read(Some(timeout))
            .build();
        Client { endpoint: endpoint.trim_end_matches('/').to_owned(), token, agent: agent.into() }
    }

    fn url(&self, file: &Reference) -> String {
        let encode = |part: &str| utf8_percent_encode(part, IN_PATHS).to_string();
        let Reference { repository, revision, file } = file;
        format!("{}/{}/resolve/{}/{}", self.endpoint, encode(repository), encode(revision), encode(file))
    }

    fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    /// Asks about a file. A redirection inside the hub is followed, one to where the contents lie is not: what counts
    /// stands in the answer that redirects there.
    pub fn metadata(&self, file: &Reference) -> Result<Metadata, Trouble> {
        let mut url = self.url(file);
        for _ in 0..REDIRECTS {
            let mut request = self.agent.head(&url).config().max_redirects(0).build();
            if let Some(authorization) = self.authorization() {
                request = request.header("authorization", authorization);
            }
            let response = request.call()?;
            let status = response.status();
            let location = text(response.headers(), "location").unwrap_or_default();
            if status.is_redirection() && location.starts_with('/') {
                url = format!("{}{location}", origin(&url)?);
                continue;
            }
            if !status.is_success() && !status.is_redirection() {
                return Err(Trouble::of(&response));
            }
            return metadata(response.headers(), status.is_success());
        }
        Err(Trouble::Answer("it redirects without end".to_owned()))
    }

    /// The contents from a byte on: where the answer begins, and a reader of what follows.
    pub fn open(&self, file: &Reference, from: u64) -> Result<(u64, impl Read + use<>), Trouble> {
        let mut request = self.agent.get(self.url(file));
        if let Some(authorization) = self.authorization() {
            request = request.header("authorization", authorization);
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response = request.call()?;
        let begins = match response.status().as_u16() {
            200 => 0,
            206 => {
                first_byte(response.headers()).ok_or_else(|| Trouble::Answer("206 without Content-Range".to_owned()))?
            }
            _ => return Err(Trouble::of(&response)),
        };
        Ok((begins, response.into_body().into_reader()))
    }

    /// The names of the files of a repository; none if that cannot be known.
    pub fn files(&self, of: &Reference) -> Vec<String> {
        #[derive(Deserialize)]
        struct Repository {
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let list = || -> Option<Vec<String>> {
            let revision = utf8_percent_encode(&of.revision, NON_ALPHANUMERIC);
            let mut request =
                self.agent.get(format!("{}/api/models/{}/revision/{revision}", self.endpoint, of.repository));
            if let Some(authorization) = self.authorization() {
                request = request.header("authorization", authorization);
            }
            let response = request.call().ok().filter(|response| response.status().is_success())?;
            let repository: Repository =
                serde_json::from_reader(response.into_body().into_reader().take(1 << 24)).ok()?;
            Some(repository.siblings.into_iter().map(|sibling| sibling.rfilename).collect())
        };
        list().unwrap_or_default()
    }
}

fn metadata(headers: &HeaderMap, whole: bool) -> Result<Metadata, Trouble> {
    let lacks = |name: &str| Trouble::Answer(format!("the answer has no {name}"));
    let commit = text(headers, "x-repo-commit").ok_or_else(|| lacks("X-Repo-Commit"))?;
    let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).ok_or_else(|| lacks("ETag"))?;
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    // Both become names of files.
    for name in [commit, etag] {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Trouble::Answer(format!("`{name}` is neither a commit nor an ETag")));
        }
    }
    let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length").filter(|_| whole));
    Ok(Metadata {
        commit: commit.to_owned(),
        etag: etag.to_ascii_lowercase(),
        size: size.and_then(|size| size.parse().ok()),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The first number of `bytes 100-199/200`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn origin(url: &str) -> Result<String, Trouble> {
    let uri: Uri = url.parse().map_err(|_| Trouble::Answer(format!("`{url}` is no address")))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => Ok(format!("{scheme}://{authority}")),
        _ => Err(Trouble::Answer(format!("`{url}` is no address"))),
    }
}
