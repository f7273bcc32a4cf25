//! What a stage reads: whether it is there, who makes it, where to get it.
use std::path::{Path, PathBuf};

use crate::hub::reference::Reference;
use crate::hub::released;
use crate::recipe::Init;

/// A file or folder that a stage reads.
#[derive(Debug, Clone)]
pub struct Input {
    /// The key that names it.
    pub key: &'static str,
    pub path: PathBuf,
    /// The earlier stage that writes it.
    pub made_by: Option<String>,
    pub present: bool,
    /// The file of the hub that it is, fetched before anything is run.
    pub hub: Option<Reference>,
    /// The way to come by it, where one is known beyond its path.
    pub origin: Option<String>,
}

impl Input {
    /// What is at a path, or comes from the hub, unless an earlier stage's weights are meant.
    pub(super) fn of(key: &'static str, from: &Init, made_by: impl FnOnce(&Path) -> Option<String>) -> Option<Input> {
        let path = from.path()?;
        let hub = match from {
            Init::Hub(reference) => Some(reference.clone()),
            _ => None,
        };
        let (made_by, origin) = (made_by(&path), released::where_to_get(&path));
        let mut input = Input { key, path, made_by, present: false, hub, origin };
        input.look();
        Some(input)
    }

    /// Looks whether it is there.
    pub(super) fn look(&mut self) {
        self.present = self.hub.as_ref().map_or_else(|| self.path.exists(), Reference::is_here);
    }
}
