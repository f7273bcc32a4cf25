//! The name of a file on the hub.
use std::fmt;
use std::path::{Path, PathBuf};

use hf_hub::{Repo, RepoType};

const SCHEME: &str = "hf://";
const MAIN: &str = "main";

/// A file of a repository: `hf://owner/repo/file`, or `hf://owner/repo@revision/file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `owner/repo`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The path inside the repository.
    pub file: String,
}

impl Reference {
    pub fn new(repository: &str, file: &str) -> Reference {
        Reference { repository: repository.to_owned(), revision: MAIN.to_owned(), file: file.to_owned() }
    }

    /// What `hf://…` names; nothing if the text does not begin so.
    ///
    /// # Errors
    /// The text after `hf://` is not `owner/repo/file`.
    pub fn parse(text: &str) -> Option<Result<Reference, String>> {
        let rest = text.strip_prefix(SCHEME)?;
        let wrong = || format!("`{text}` is not of the form hf://owner/repo/file");
        let parse = || {
            let (owner, rest) = rest.split_once('/')?;
            let (repo, file) = rest.split_once('/')?;
            let (repo, revision) = repo.split_once('@').unwrap_or((repo, MAIN));
            let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_whitespace);
            let names = [owner, repo, revision].into_iter().chain(file.split('/'));
            names.clone().all(is_name).then(|| Reference {
                repository: format!("{owner}/{repo}"),
                revision: revision.to_owned(),
                file: file.to_owned(),
            })
        };
        Some(parse().ok_or_else(wrong))
    }

    /// The repository at this revision, as the cache names it.
    pub fn repo(&self) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, self.revision.clone())
    }

    /// Where a browser shows the file.
    pub fn page(&self) -> String {
        format!("https://huggingface.co/{}/blob/{}/{}", self.repository, self.revision, self.file)
    }

    /// Where it is expected once it is here.
    pub fn path(&self) -> PathBuf {
        Path::new("checkpoints").join(self.file.rsplit('/').next().unwrap_or(&self.file))
    }

    /// Whether it is here: a file put there by hand, or a link to this file in the hub's cache.
    pub fn is_here(&self) -> bool {
        let path = self.path();
        path.exists() && path.read_link().map_or(true, |target| self.may_be(&target))
    }

    /// Whether a link's target can be this file: if it is in the hub's cache, then as one of this repository and, where
    /// the revision is a commit, of this commit.
    fn may_be(&self, target: &Path) -> bool {
        let has = |name: &str| target.components().any(|part| part.as_os_str() == name);
        let in_cache = target.components().any(|part| part.as_os_str().to_string_lossy().starts_with("models--"));
        !in_cache || has(&self.repo().folder_name()) && (!is_commit(&self.revision) || has(&self.revision))
    }
}

/// Whether a revision is the full name of a commit.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Reference { repository, revision, file } = self;
        match revision.as_str() {
            MAIN => write!(f, "{SCHEME}{repository}/{file}"),
            _ => write!(f, "{SCHEME}{repository}@{revision}/{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Reference, String> {
        Reference::parse(text).unwrap()
    }

    #[test]
    fn names_are_read_and_written() {
        let plain = parse("hf://a/b/c/d.pth").unwrap();
        assert_eq!(plain, Reference::new("a/b", "c/d.pth"));
        assert_eq!(plain.path(), Path::new("checkpoints/d.pth"));
        for text in ["hf://a/b/c.pth", "hf://a/b@v1.0/c.pth"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Reference::parse("checkpoints/a.pth"), None);
        for text in
            ["hf://a/b", "hf://a", "hf://", "hf://a//c", "hf://a/b/../c", "hf:///b/c", "hf://a/b@/c", "hf://a/b/"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_link_to_another_repository_is_not_the_file() {
        let commit = "0123456789012345678901234567890123456789";
        let link = |repo: &str| PathBuf::from(format!("/cache/hub/models--{repo}/snapshots/{commit}/c.pth"));
        let file = Reference::new("a/b", "c.pth");
        assert!(file.may_be(&link("a--b")) && file.may_be(Path::new("/elsewhere/c.pth")));
        assert!(!file.may_be(&link("a--other")));
        let pinned = Reference { revision: commit.to_owned(), ..file.clone() };
        let other = Reference { revision: commit.replace('9', "8"), ..file };
        assert!(pinned.may_be(&link("a--b")) && !other.may_be(&link("a--b")));
    }
}
