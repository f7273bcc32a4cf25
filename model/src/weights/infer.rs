//! Reads a NotaGen's sizes from the shapes of its tensors.

use super::{Error, StateDict};
use crate::architecture::{Architecture, TIED, VOCABULARY};

const PATCH_EMBEDDING: &str = "patch_level_decoder.patch_embedding.weight";
const PATCH_POSITIONS: &str = "patch_level_decoder.base.wpe.weight";
const PATCH_LAYERS: &str = "patch_level_decoder.base.h.";
const CHAR_LAYERS: &str = "char_level_decoder.base.transformer.h.";

/// Whether the names are a NotaGen's.
pub(super) fn is_notagen(state: &StateDict) -> bool {
    let begins = |start: &str| state.iter().any(|(name, _)| name.starts_with(start));
    begins("patch_level_decoder.") && begins("char_level_decoder.")
}

/// The sizes of the NotaGen in a file. Every tensor of such a network has to be there with its shape,
/// and no other; the output layer may be missing, since it is the embedding. Dropout is not in the
/// file: it is the original's.
pub fn architecture(state: &StateDict) -> Result<Architecture, Error> {
    if !is_notagen(state) {
        let kind = super::inspect::kind(state).map_or("another network", |kind| kind.description());
        return Err(Error::NotNotaGen { path: state.path().to_path_buf(), kind: kind.into() });
    }
    let embedding = matrix(state, PATCH_EMBEDDING)?;
    let positions = matrix(state, PATCH_POSITIONS)?;
    if embedding[1] % VOCABULARY != 0 {
        let expected = vec![embedding[0], 16 * VOCABULARY];
        return Err(shape(state, PATCH_EMBEDDING, &embedding, expected));
    }
    let mut architecture =
        Architecture::sized(positions[0], layers(state, PATCH_LAYERS)?, layers(state, CHAR_LAYERS)?, embedding[0]);
    architecture.patch_size = embedding[1] / VOCABULARY;
    let path = || state.path().to_path_buf();
    architecture.check().map_err(|source| Error::Architecture { path: path(), source })?;
    compare(state, &architecture)?;
    Ok(architecture)
}

fn compare(state: &StateDict, architecture: &Architecture) -> Result<(), Error> {
    let path = || state.path().to_path_buf();
    let mut expected = architecture.parameters();
    let missing: Vec<_> = expected.iter().filter(|(name, _)| state.get(name).is_none()).collect();
    if let Some((key, _)) = missing.first() {
        return Err(Error::MissingKey { path: path(), key: key.clone(), more: missing.len() - 1 });
    }
    expected.push((TIED.into(), vec![VOCABULARY, architecture.hidden_size]));
    for (name, wanted) in &expected {
        if let Some(tensor) = state.get(name).filter(|tensor| tensor.shape() != wanted) {
            return Err(shape(state, name, tensor.shape(), wanted.clone()));
        }
    }
    let known: std::collections::HashSet<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let unknown: Vec<_> = state.iter().map(|(name, _)| name).filter(|name| !known.contains(name)).collect();
    match unknown.first() {
        Some(key) => Err(Error::UnexpectedKey { path: path(), key: key.to_string(), more: unknown.len() - 1 }),
        None => Ok(()),
    }
}

fn matrix(state: &StateDict, name: &str) -> Result<[i64; 2], Error> {
    let missing = || Error::MissingKey { path: state.path().to_path_buf(), key: name.into(), more: 0 };
    match *state.get(name).ok_or_else(missing)?.shape() {
        [rows, columns] => Ok([rows, columns]),
        ref other => Err(shape(state, name, other, vec![-1, -1])),
    }
}

/// How many layers there are, the last one's number deciding, so that a gap is told as what is missing.
fn layers(state: &StateDict, prefix: &str) -> Result<i64, Error> {
    let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok();
    let count = state.iter().filter_map(|(name, _)| number(name)).max().map_or(0, |last| last.saturating_add(1));
    if (1..=state.len() as i64).contains(&count) {
        return Ok(count);
    }
    let is_there = |layer: &usize| state.get(&format!("{prefix}{layer}.ln_1.weight")).is_some();
    let absent = (0..=state.len()).find(|layer| !is_there(layer)).unwrap_or_default();
    let key = format!("{prefix}{absent}.ln_1.weight");
    Err(Error::MissingKey { path: state.path().to_path_buf(), key, more: 0 })
}

fn shape(state: &StateDict, name: &str, found: &[i64], expected: Vec<i64>) -> Error {
    Error::Shape { path: state.path().to_path_buf(), key: name.into(), found: found.to_vec(), expected }
}
