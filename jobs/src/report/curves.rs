//! What a training wrote down of itself, as lines to draw.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// More points than these tell the eye nothing: neighbours are averaged.
const MOST_POINTS: usize = 400;

/// (step, value)
pub type Line = Vec<(f64, f64)>;

/// The best evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    pub step: f64,
    pub epoch: u64,
    pub loss: f64,
}

/// The lines of one training.
#[derive(Debug, Default)]
pub struct Curves {
    pub train_loss: Line,
    pub eval_loss: Line,
    pub best: Option<Best>,
    /// Every other number of its steps, by name.
    pub others: BTreeMap<String, Line>,
}

/// What is no curve of its own.
const NOT_DRAWN: [&str; 10] =
    ["event", "step", "epoch", "loss", "memory", "memory_peak", "tokens_per_second", "skipped", "seconds", "scale"];

impl Curves {
    /// Of a stage's folder; nothing where it wrote no metrics. Lines that cannot be read are passed over.
    pub fn read(folder: &Path) -> Option<Curves> {
        let file = File::open(folder.join("metrics.jsonl")).ok()?;
        let mut curves = Curves::default();
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if let Ok(event) = serde_json::from_str::<Value>(&line) {
                curves.take(&event);
            }
        }
        if curves.train_loss.is_empty() {
            return None;
        }
        curves.train_loss = thinned(&curves.train_loss);
        curves.eval_loss = thinned(&curves.eval_loss);
        for line in curves.others.values_mut() {
            *line = thinned(line);
        }
        Some(curves)
    }

    fn take(&mut self, event: &Value) {
        let Some(step) = event["step"].as_f64() else { return };
        match event["event"].as_str() {
            Some("step") => {
                self.train_loss.extend(event["loss"].as_f64().map(|loss| (step, loss)));
                for (name, value) in event.as_object().into_iter().flatten() {
                    if let Some(value) = value.as_f64().filter(|_| !NOT_DRAWN.contains(&name.as_str())) {
                        self.others.entry(name.clone()).or_default().push((step, value));
                    }
                }
            }
            Some("evaluated") => {
                let Some(loss) = event["eval_loss"].as_f64() else { return };
                self.eval_loss.push((step, loss));
                if self.best.is_none_or(|best| loss < best.loss) {
                    self.best = Some(Best { step, epoch: event["epoch"].as_u64().unwrap_or(0), loss });
                }
            }
            _ => {}
        }
    }
}

/// At most `MOST_POINTS`, each the mean of as many neighbours.
fn thinned(line: &Line) -> Line {
    let each = line.len().div_ceil(MOST_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        (x / count, y / count)
    };
    line.chunks(each).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_become_lines_and_what_is_cut_short_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Curves::read(folder.path()).is_none());
        let mut text = String::new();
        for step in 1..=2000 {
            text += &format!("{{\"event\":\"step\",\"step\":{step},\"loss\":{step},\"epoch\":1,\"margin\":0.5}}\n");
        }
        for (step, loss) in [(10, 3.0), (20, 2.0), (30, 2.5)] {
            text +=
                &format!("{{\"event\":\"evaluated\",\"step\":{step},\"epoch\":{},\"eval_loss\":{loss}}}\n", step / 10);
        }
        std::fs::write(folder.path().join("metrics.jsonl"), text + "{\"event\":\"st").unwrap();
        let curves = Curves::read(folder.path()).unwrap();
        assert_eq!((curves.train_loss.len(), curves.train_loss[0]), (400, (3.0, 3.0)));
        assert_eq!(curves.best, Some(Best { step: 20.0, epoch: 2, loss: 2.0 }));
        assert_eq!(curves.others.keys().collect::<Vec<_>>(), ["margin"]);
    }
}
