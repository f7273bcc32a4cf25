//! What people are told when the hub does not give a file.
use hf_hub::Cache;

use super::client::{Client, Trouble};
use super::reference::Reference;
use crate::common::failure::Failure;
use crate::common::nearest;
use crate::hub::released;

/// One line, and the way out.
pub fn refused(client: &Client, cache: &Cache, file: &Reference, trouble: &Trouble) -> Failure {
    let Reference { repository, revision, .. } = file;
    let (status, code) = match trouble {
        Trouble::Network(error) => {
            return Failure::failed(format!("{file}: cannot reach {}: {error}", client.endpoint))
                .hint(without_network(cache, file));
        }
        Trouble::Answer(what) => {
            return Failure::failed(format!("{file}: {} does not answer as the hub does: {what}", client.endpoint))
                .hint("is HF_ENDPOINT right?");
        }
        Trouble::Status { status, code, .. } => (*status, code.as_deref().unwrap_or_default()),
    };
    match (status, code) {
        (404, "RevisionNotFound") => Failure::failed(format!("{file}: {repository} has no revision `{revision}`"))
            .hint("a branch, a tag or a whole commit; without @, main"),
        (404, "EntryNotFound" | "") => no_file(client, file),
        (_, "RepoNotFound") | (404, _) => {
            Failure::failed(format!("{file}: there is no repository {repository}, or it is private"))
                .hint(format!("{}; a private one needs HF_TOKEN", nearest::hint(repository, released::repositories())))
        }
        (401 | 403, _) => {
            let hint = match (&client.token, code) {
                (_, "GatedRepo") => format!(
                    "ask for access on https://huggingface.co/{repository}, and set HF_TOKEN to a token of yours"
                ),
                (None, _) => {
                    "set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens)".to_owned()
                }
                (Some(_), _) => {
                    "the token (HF_TOKEN, or the file `token` in HF_HOME) is not valid, or may not read it".to_owned()
                }
            };
            Failure::failed(format!("{file}: access denied (HTTP {status})")).hint(hint)
        }
        (429, _) => Failure::failed(format!("{file}: too many requests (HTTP 429)"))
            .hint("try again later: what has arrived is kept; with HF_TOKEN set the hub allows more"),
        (500.., _) => Failure::failed(format!("{file}: the hub is in trouble (HTTP {status})"))
            .hint("try again later: what has arrived is kept"),
        _ => Failure::failed(format!("{file}: the hub answers HTTP {status}")).hint("is HF_ENDPOINT right?"),
    }
}

fn no_file(client: &Client, file: &Reference) -> Failure {
    let files = client.files(file);
    let files: Vec<&str> = files.iter().map(String::as_str).filter(|name| !name.starts_with(".git")).collect();
    Failure::failed(format!("{file}: {} has no file `{}`", file.repository, file.file))
        .hint_if((!files.is_empty()).then(|| nearest::hint(&file.file, files)))
}

pub fn not_cached(cache: &Cache, file: &Reference) -> Failure {
    Failure::failed(format!("{file}: not in the hub's cache, and HF_HUB_OFFLINE is set"))
        .hint(without_network(cache, file))
}

fn without_network(cache: &Cache, file: &Reference) -> String {
    format!(
        "fetch it on a machine with network into the same cache ({}), or put the file at {}; HF_ENDPOINT names a mirror",
        cache.path().display(),
        file.path().display()
    )
}
