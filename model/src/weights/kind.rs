//! Whose weights a file holds, told by the names of its tensors.

use super::StateDict;

/// The networks that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WeightsKind {
    NotaGen,
    M3,
    Clamp2,
}

impl WeightsKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            WeightsKind::NotaGen => "notagen",
            WeightsKind::M3 => "m3",
            WeightsKind::Clamp2 => "clamp2",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            WeightsKind::NotaGen => "NotaGen",
            WeightsKind::M3 => "M3, CLaMP 2's music encoder",
            WeightsKind::Clamp2 => "CLaMP 2",
        }
    }
}

/// The network whose names these are.
pub(super) fn kind_of(state: &StateDict) -> Option<WeightsKind> {
    if is_notagen(state) {
        Some(WeightsKind::NotaGen)
    } else if state.get("music_proj.weight").is_some() && state.get("music_model.patch_embedding.weight").is_some() {
        Some(WeightsKind::Clamp2)
    } else if state.get("encoder.patch_embedding.weight").is_some() {
        Some(WeightsKind::M3)
    } else {
        None
    }
}

/// Whether the names are a NotaGen's.
pub(super) fn is_notagen(state: &StateDict) -> bool {
    let begins = |start: &str| state.iter().any(|(name, _)| name.starts_with(start));
    begins("patch_level_decoder.") && begins("char_level_decoder.")
}

/// Whether networks have weights of this type.
pub(super) fn is_float(kind: tch::Kind) -> bool {
    use tch::Kind::{BFloat16, Double, Float, Half};
    matches!(kind, Float | Half | BFloat16 | Double)
}
