//! Reads a NotaGen's sizes from the shapes of its tensors.

use super::kind::{WeightsKind, is_float, is_notagen, kind_of};
use super::{Error, StateDict};
use crate::architecture::{Architecture, PATCH_SIZE, TIED, VOCABULARY};
use crate::pth;

const PATCH_EMBEDDING: &str = "patch_level_decoder.patch_embedding.weight";
const PATCH_POSITIONS: &str = "patch_level_decoder.base.wpe.weight";
const PATCH_LAYERS: &str = "patch_level_decoder.base.h.";
const CHAR_LAYERS: &str = "char_level_decoder.base.transformer.h.";

/// The sizes of the NotaGen in a file. Every tensor of such a network has to be there with its shape,
/// and no other; the output layer may be missing, since it is the embedding. Dropout is not in the
/// file: it is the original's.
pub fn architecture(state: &StateDict) -> Result<Architecture, Error> {
    if !is_notagen(state) {
        let kind = kind_of(state).map_or("another network", WeightsKind::description);
        return Err(Error::NotNotaGen { path: state.path().to_path_buf(), kind: kind.into() });
    }
    let embedding = matrix(state, PATCH_EMBEDDING)?;
    let positions = matrix(state, PATCH_POSITIONS)?;
    if embedding[1] % VOCABULARY != 0 {
        let expected = vec![embedding[0], PATCH_SIZE * VOCABULARY];
        return Err(misshapen(state, PATCH_EMBEDDING, &embedding, expected));
    }
    let mut architecture = Architecture::sized(
        positions[0],
        layers(state, PATCH_LAYERS, "ln_1.weight")?,
        layers(state, CHAR_LAYERS, "ln_1.weight")?,
        embedding[0],
    );
    architecture.patch_size = embedding[1] / VOCABULARY;
    let path = || state.path().to_path_buf();
    architecture.check().map_err(|source| Error::Architecture { path: path(), source })?;
    let tied = (TIED.to_owned(), vec![VOCABULARY, architecture.hidden_size]);
    compare(state, "a NotaGen", architecture.parameters(), Some(tied), |_| true)?;
    Ok(architecture)
}

/// Refuses a file without one of the tensors, with one of another shape or no float, or with others among those
/// `of_network`.
pub(super) fn compare(
    state: &StateDict,
    network: &'static str,
    mut expected: Vec<(String, Vec<i64>)>,
    optional: Option<(String, Vec<i64>)>,
    of_network: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let path = || state.path().to_path_buf();
    let missing: Vec<_> = expected.iter().filter(|(name, _)| state.get(name).is_none()).collect();
    if let Some((key, _)) = missing.first() {
        return Err(Error::MissingKey { path: path(), key: key.clone(), more: missing.len() - 1 });
    }
    expected.extend(optional);
    for (name, wanted) in &expected {
        let Some(tensor) = state.get(name) else { continue };
        if tensor.shape() != wanted {
            return Err(misshapen(state, name, tensor.shape(), wanted.clone()));
        }
        if !is_float(tensor.kind()) {
            return Err(Error::Dtype { path: path(), key: name.clone(), dtype: pth::kind_name(tensor.kind()) });
        }
    }
    let known: std::collections::HashSet<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let names = state.iter().map(|(name, _)| name).filter(|name| of_network(name));
    let unknown: Vec<_> = names.filter(|name| !known.contains(name)).collect();
    match unknown.first() {
        Some(key) => Err(Error::UnexpectedKey { path: path(), network, key: key.to_string(), more: unknown.len() - 1 }),
        None => Ok(()),
    }
}

pub(super) fn matrix(state: &StateDict, name: &str) -> Result<[i64; 2], Error> {
    let missing = || Error::MissingKey { path: state.path().to_path_buf(), key: name.into(), more: 0 };
    match *state.get(name).ok_or_else(missing)?.shape() {
        [rows, columns] => Ok([rows, columns]),
        ref other => Err(misshapen(state, name, other, vec![-1, -1])),
    }
}

/// How many layers there are, the last one's number deciding, so that a gap is reported as a missing tensor. `tensor` is
/// the name of one that every layer has.
pub(super) fn layers(state: &StateDict, prefix: &str, tensor: &str) -> Result<i64, Error> {
    let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok();
    let count = state.iter().filter_map(|(name, _)| number(name)).max().map_or(0, |last| last.saturating_add(1));
    if (1..=state.len() as i64).contains(&count) {
        return Ok(count);
    }
    let is_there = |layer: &usize| state.get(&format!("{prefix}{layer}.{tensor}")).is_some();
    let absent = (0..=state.len()).find(|layer| !is_there(layer)).unwrap_or_default();
    let key = format!("{prefix}{absent}.{tensor}");
    Err(Error::MissingKey { path: state.path().to_path_buf(), key, more: 0 })
}

pub(super) fn misshapen(state: &StateDict, name: &str, found: &[i64], expected: Vec<i64>) -> Error {
    Error::Shape { path: state.path().to_path_buf(), key: name.into(), found: found.to_vec(), expected }
}
