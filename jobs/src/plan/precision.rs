//! What `precision: auto` comes to in the stages of a plan.
use trainer::{Dtype, Precision};

use super::planned::{Plan, Planned};
use super::state::Record;
use crate::recipe::{Native, Recipe, Stage};

impl Planned {
    /// Settles what `auto` is.
    pub(super) fn settle(&mut self, format: Dtype, native: &Native) {
        let Some(precision) = self.stage.precision() else { return };
        *precision = format.into();
        self.precision = Some(match native.best() {
            _ if native.formats.is_empty() => format!("precision auto: {}", native.why),
            best if best == format => format!("precision auto is {format}: {}", native.why),
            best => format!("goes on in {format}, as it began; begun here it would be {best}: {}", native.why),
        });
    }
}

/// The precision of a stage that leaves it to the machine.
pub(super) fn asks_machine(stage: &mut Stage) -> Option<&mut Precision> {
    stage.precision().filter(|precision| **precision == Precision::Auto)
}

/// The precision in which a stage was begun.
pub(super) fn begun_in(record: Option<&Record>) -> Option<Dtype> {
    serde_json::from_value(record?.fingerprint.settings.get("precision")?.clone()).ok()
}

impl Plan {
    /// The stages to run that compute in a format which this machine emulates, or which is not its own: fp16 on a CPU.
    pub fn slow_formats(&self) -> Option<(Dtype, Vec<&str>)> {
        let to_run = self.stages.iter().filter(|planned| planned.is_to_run());
        let mut found: Vec<(Dtype, &str)> = Vec::new();
        for planned in to_run {
            // A CPU writes music in fp32, whatever is asked for.
            let computes = !matches!(planned.stage, Stage::Generate(_));
            if let Some(format) =
                planned.stage.clone().precision().filter(|_| computes).map(|precision| precision.dtype())
                && !self.native.formats.is_empty()
                && !self.native.multiplies(format)
            {
                found.push((format, &planned.name));
            }
        }
        let format = found.first()?.0;
        Some((format, found.into_iter().filter(|(of, _)| *of == format).map(|(_, name)| name).collect()))
    }

    /// The recipe with what `auto` came to.
    pub fn settled_recipe(&self) -> Recipe {
        let mut recipe = self.recipe.clone();
        recipe.stages = self.stages.iter().map(|planned| planned.stage.clone()).collect();
        if recipe.precision == Precision::Auto {
            recipe.precision = self.native.best().into();
        }
        recipe
    }
}
