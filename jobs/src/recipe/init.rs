//! Where weights come from.
use std::path::PathBuf;

use crate::hub::reference::Reference;

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// A file; the text is as the recipe gives it.
    File(PathBuf),
    /// `hf://owner/repo/file`: the file of that name in checkpoints/, fetched if it is not there.
    Hub(Reference),
    /// The weights that an earlier stage makes.
    Stage(String),
}

impl Init {
    /// # Errors
    /// The text after `hf://` is not `owner/repo/file`.
    pub fn parse(text: &str) -> Result<Init, String> {
        if let Some(name) = text.strip_prefix("stage:") {
            return Ok(Init::Stage(name.to_owned()));
        }
        match Reference::parse(text) {
            Some(reference) => Ok(Init::Hub(reference?)),
            None => Ok(Init::File(PathBuf::from(text))),
        }
    }

    /// The file on this machine, unless a stage makes it.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Init::File(path) => Some(path.clone()),
            Init::Hub(reference) => Some(reference.path()),
            Init::Stage(_) => None,
        }
    }
}
