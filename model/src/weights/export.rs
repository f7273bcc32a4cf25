//! Turns one file of weights into another.

use std::{path::Path, sync::Arc};

use tch::Kind;

use super::{Checkpoint, Error, StateDict, infer, kind::is_float, kind::is_notagen, safetensors, state_dict::equal};
use crate::{
    architecture::{TIED, TIED_TO},
    pth::{self, Dict, TensorRef, TensorValue, Value},
};

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PyTorch's.
    Pth,
    /// Hugging Face's.
    SafeTensors,
}

impl Format {
    /// The format that a file's extension asks for.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "pth" => Some(Format::Pth),
            "safetensors" => Some(Format::SafeTensors),
            _ => None,
        }
    }
}

/// How a file is to be made.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// Its format; without one, its extension says.
    pub format: Option<Format>,
    /// The element type of the weights; without one, they stay as they are.
    pub kind: Option<Kind>,
    /// Whether optimizer, schedule and whatever else is there goes along. Epoch and evaluation loss
    /// always do, since the original's fine-tuning asks for them.
    pub everything: bool,
}

/// Writes the weights of `input` to `output`, one tensor at a time. Names lose their wrappers'
/// prefixes; a NotaGen's tensors are put in PyTorch's order, the tied output layer included.
pub fn export(input: &Path, output: &Path, options: &ExportOptions) -> Result<(), Error> {
    let refuse = |what: &str| Error::Export { path: output.to_path_buf(), what: what.into() };
    let format = options.format.or_else(|| Format::of(output));
    let format = format.ok_or_else(|| refuse("its extension is neither .pth nor .safetensors"))?;
    if options.everything && format == Format::SafeTensors {
        return Err(refuse("safetensors holds weights alone: leave the optimizer out, or choose .pth"));
    }
    if options.kind.is_some_and(|kind| !is_float(kind)) {
        return Err(refuse("weights are float32, bfloat16 or float16"));
    }
    let checkpoint = Checkpoint::open(input)?;
    let tensors: Vec<_> =
        ordered(checkpoint.state())?.into_iter().map(|(name, tensor)| (name, cast(tensor, options.kind))).collect();
    let rest = rest(&checkpoint, options.everything)?;
    match format {
        Format::SafeTensors => safetensors::write(output, tensors, safetensors::metadata(&rest)),
        Format::Pth => {
            let mut model = Dict::ordered();
            for (name, tensor) in tensors {
                model.insert(name, tensor);
            }
            let mut root = Dict::new();
            root.insert("model", model);
            for (key, value) in rest.iter() {
                root.insert(key.clone(), value.clone());
            }
            Ok(pth::write(output, &root.into())?)
        }
    }
}

fn cast(tensor: Arc<TensorRef>, kind: Option<Kind>) -> TensorValue {
    match kind {
        Some(kind) if is_float(tensor.kind()) && tensor.kind() != kind => TensorValue::Cast(tensor, kind),
        _ => TensorValue::Stored(tensor),
    }
}

fn ordered(state: &StateDict) -> Result<Vec<(String, Arc<TensorRef>)>, Error> {
    if !is_notagen(state) {
        return Ok(state.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect());
    }
    let names = infer::architecture(state)?.parameters().into_iter().map(|(name, _)| name);
    let mut tensors: Vec<_> = names.filter_map(|name| state.get(&name).cloned().map(|tensor| (name, tensor))).collect();
    if let Some(embedding) = state.get(TIED_TO) {
        let output = state.get(TIED).unwrap_or(embedding);
        let tied = if equal(embedding, output)? { embedding } else { output };
        tensors.push((TIED.into(), tied.clone()));
    }
    Ok(tensors)
}

fn rest(checkpoint: &Checkpoint, everything: bool) -> Result<Dict, Error> {
    if everything {
        return Ok(checkpoint.rest().clone());
    }
    let mut rest = Dict::new();
    if let Some(epoch) = checkpoint.epoch()? {
        rest.insert("epoch", epoch);
    }
    if let Some(epoch) = checkpoint.best_epoch()? {
        rest.insert("best_epoch", epoch);
    }
    if let Some(loss) = checkpoint.min_eval_loss()? {
        rest.insert("min_eval_loss", loss);
    }
    if let Some(metadata @ Value::Dict(_)) = checkpoint.entry("metadata") {
        rest.insert("metadata", metadata.clone());
    }
    Ok(rest)
}
