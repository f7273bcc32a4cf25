//! What a stage depends on, in a form that can be compared: its settings, its inputs, the stages before it.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::digests::{MISSING, hex};

/// What a stage depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The settings that decide the result.
    pub settings: BTreeMap<String, Value>,
    /// A digest for each input, by key and path.
    pub inputs: BTreeMap<String, String>,
    /// The fingerprints of the stages whose results it reads.
    pub stages: BTreeMap<String, String>,
    /// SHA-256 of all of these.
    pub digest: String,
}

impl Fingerprint {
    pub fn new(
        settings: BTreeMap<String, Value>,
        inputs: BTreeMap<String, String>,
        stages: BTreeMap<String, String>,
    ) -> Fingerprint {
        let mut hash = Sha256::new();
        for (key, value) in &settings {
            hash.update(format!("setting {key} {value}\n"));
        }
        for (key, value) in &inputs {
            hash.update(format!("input {key} {value}\n"));
        }
        for (key, value) in &stages {
            hash.update(format!("stage {key} {value}\n"));
        }
        let digest = hex(hash);
        Fingerprint { settings, inputs, stages, digest }
    }

    /// Why this differs from what a stage was run with, in words.
    pub fn changes_since(&self, before: &Fingerprint) -> Vec<String> {
        let mut reasons = Vec::new();
        let none = Value::Null;
        for key in union(&self.settings, &before.settings) {
            let (was, is) = (before.settings.get(key).unwrap_or(&none), self.settings.get(key).unwrap_or(&none));
            if was != is {
                let [was, is] =
                    [was, is].map(|value| if value.is_null() { "unset".to_owned() } else { value.to_string() });
                reasons.push(format!("{key} {was} → {is}"));
            }
        }
        for key in union(&self.inputs, &before.inputs) {
            match (before.inputs.get(key), self.inputs.get(key)) {
                (was, is) if was == is => {}
                (_, Some(is)) if is == MISSING => reasons.push(format!("{key} is missing")),
                _ => reasons.push(format!("{key} changed")),
            }
        }
        for key in union(&self.stages, &before.stages) {
            if self.stages.get(key) != before.stages.get(key) {
                reasons.push(format!("stage {key} changed"));
            }
        }
        reasons
    }
}

fn union<'a, V>(one: &'a BTreeMap<String, V>, other: &'a BTreeMap<String, V>) -> Vec<&'a String> {
    let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
    keys.sort();
    keys.dedup();
    keys
}
