//! The classes and functions that PyTorch's checkpoints name, and no others.

use tch::Kind;

use super::{Problem, dtype};

/// What a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    Counter,
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    RebuildFromType,
    Tensor,
    Parameter,
    Size,
    Device,
    Encode,
    Bytearray,
    /// A storage class; without a type it holds bytes.
    Storage(Option<Kind>),
    Dtype(Kind),
}

/// The meaning of `module.name`, which stands at byte `at`.
pub(super) fn resolve(module: &str, name: &str, at: usize) -> Result<Global, Problem> {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("collections", "Counter") => Some(Global::Counter),
        ("torch._utils", "_rebuild_tensor") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(Global::RebuildParameter),
        ("torch._tensor" | "torch.tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
        ("torch.nn.parameter", "Parameter") => Some(Global::Parameter),
        ("torch", "Tensor") => Some(Global::Tensor),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device") => Some(Global::Device),
        ("_codecs", "encode") => Some(Global::Encode),
        ("builtins" | "__builtin__", "bytearray" | "bytes") => Some(Global::Bytearray),
        ("torch.storage" | "torch", "UntypedStorage") => Some(Global::Storage(None)),
        ("torch" | "torch.cuda", name) if name.ends_with("Storage") => {
            dtype::from_storage(name).map(|kind| Global::Storage(Some(kind)))
        }
        ("torch", name) => dtype::from_name(name).filter(|kind| dtype::name(*kind) == name).map(Global::Dtype),
        _ => None,
    };
    match known {
        Some(global) => Ok(global),
        None if module == "torch" && dtype::known_but_unsupported(name) => {
            Err(Problem::Dtype { name: format!("torch.{name}") })
        }
        None => Err(Problem::Global { at, name: format!("{module}.{name}") }),
    }
}
