//! Weights to a network.
use std::path::Path;

use model::{Architecture, NotaGen, weights};
use tch::Device;

use crate::common::failure::{Failure, Result};

/// The sizes of the network in a file.
///
/// # Errors
/// It cannot be read, is not a NotaGen, or has a name that says otherwise.
pub fn architecture(path: &Path) -> Result<Architecture> {
    Ok(weights::usable(&weights::load_state(path)?)?)
}

/// Refuses weights of another size than the recipe's network. Dropout leaves no trace in weights.
pub fn check(path: &Path, expected: &Architecture) -> Result<()> {
    let found = architecture(path)?;
    let sizes = [
        ("patch_length", found.patch_length, expected.patch_length),
        ("patch_layers", found.patch_layers, expected.patch_layers),
        ("char_layers", found.char_layers, expected.char_layers),
        ("hidden_size", found.hidden_size, expected.hidden_size),
        ("patch_size", found.patch_size, expected.patch_size),
    ];
    let wrong: Vec<String> = sizes
        .iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(size, found, expected)| format!("{size} {found}, the recipe's `model` {expected}"))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let Architecture { patch_length, patch_layers, char_layers, hidden_size, .. } = found;
    Err(Failure::usage(format!("{} has {}", path.display(), wrong.join("; "))).hint(format!(
        "model: {{patch_length: {patch_length}, patch_layers: {patch_layers}, char_layers: {char_layers}, hidden_size: {hidden_size}}}"
    )))
}

/// Refuses weights that are no music encoder's.
pub fn check_encoder(path: &Path) -> Result<()> {
    let found = weights::inspect(path)?;
    let kind = found.kind.as_deref().unwrap_or("of no known kind");
    if matches!(kind, "clamp2" | "m3") {
        return Ok(());
    }
    Err(Failure::usage(format!("{} is {kind}, and no music encoder", path.display()))
        .hint("features come from the weights of CLaMP 2 or M3 (checkpoints/README.md)"))
}

/// The network in a file; its dropout is that of `expected`, whose sizes it has to have.
pub fn load(path: &Path, expected: Option<&Architecture>, device: Device) -> Result<NotaGen> {
    let Some(expected) = expected else { return Ok(weights::load(path, device)?) };
    check(path, expected)?;
    let state = weights::load_state(path)?;
    let model = NotaGen::blank(expected, device)?;
    model.load(|name| state.load(name, Device::Cpu).map_err(Failure::from))?;
    Ok(model)
}

impl From<model::Error> for Failure {
    fn from(error: model::Error) -> Failure {
        Failure::failed(error.to_string()).hint_if(error.hint())
    }
}

impl From<weights::Error> for Failure {
    fn from(error: weights::Error) -> Failure {
        Failure::failed(error.to_string()).hint_if(error.hint())
    }
}

impl From<notation::Error> for Failure {
    fn from(error: notation::Error) -> Failure {
        Failure::failed(error.to_string()).hint_if(error.hint())
    }
}

impl From<torch_ext::Error> for Failure {
    fn from(error: torch_ext::Error) -> Failure {
        Failure::failed(format!("libtorch: {error}"))
    }
}

impl From<tch::TchError> for Failure {
    fn from(error: tch::TchError) -> Failure {
        Failure::from(model::Error::from(error))
    }
}
