//! M3 and CLaMP 2's music encoder against transformers in float32 (`golden/make_m3.py`).
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod python;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use model::m3::{M3, M3Architecture, M3Batch, Masked, MusicEncoder, UNUSED_PARAMETERS};
use model::patches::Patches;
use model::weights::{self, CheckpointParts};
use model::{Checkpointing, Mode, features};
use tch::{Device, Kind, Tensor};

const SIZES: M3Architecture = M3Architecture {
    patch_size: 64,
    patch_length: 16,
    patch_layers: 2,
    token_layers: 2,
    hidden_size: 128,
    dropout: 0.1,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden() -> HashMap<String, Tensor> {
    Tensor::read_safetensors(file("m3.safetensors")).unwrap().into_iter().collect()
}

fn patches(rows: &Tensor) -> Patches {
    let rows: Vec<Vec<u8>> = rows.try_into().unwrap();
    Patches::from_rows(64, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn pieces(golden: &HashMap<String, Tensor>) -> Vec<Patches> {
    (0..).map_while(|i| golden.get(&format!("piece/{i}"))).map(patches).collect()
}

fn worst(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    (ours - theirs).abs().max().double_value(&[])
}

/// The golden masked pieces, without their padding.
fn masked(golden: &HashMap<String, Tensor>) -> Vec<Masked> {
    let get = |name: &str, p: i64| golden[&format!("masked/{name}")].get(p);
    (0..3)
        .map(|p| {
            let length = get("mask", p).sum(Kind::Int64).int64_value(&[]);
            let selected: Vec<u8> = get("selected", p).try_into().unwrap();
            Masked {
                input: patches(&get("input", p).narrow(0, 0, length)),
                target: patches(&get("target", p).narrow(0, 0, length)),
                selected: (0..selected.len()).filter(|&i| selected[i] == 1).collect(),
            }
        })
        .collect()
}

/// The golden M3; dropout is not in the file.
fn network(dropout: f64) -> M3 {
    let model = M3::new(&M3Architecture { dropout, ..SIZES }, Device::Cpu, 0).unwrap();
    let state = weights::load_state(&file("m3.pth")).unwrap();
    model.load::<model::Error>(|name| Ok(state.load(name, Device::Cpu)?)).unwrap();
    model
}

#[test]
fn features_are_within_1e_4_of_transformers() {
    let golden = golden();
    let pieces = pieces(&golden);
    assert!(pieces.len() > 4 && pieces.iter().any(|p| p.len() > 16) && pieces.iter().any(|p| p.len() == 16));
    for (name, width, layers) in [("clamp2", 96, 0), ("m3", 128, 2)] {
        let encoder = MusicEncoder::load(&file(&format!("{name}.pth")), Device::Cpu, Kind::Float).unwrap();
        assert_eq!(
            (encoder.width(), encoder.architecture()),
            (width, &M3Architecture { token_layers: layers, ..SIZES })
        );
        let theirs = &golden[&format!("features/{name}")];
        let ours = encoder.embed(&pieces).unwrap();
        assert!(worst(&ours, theirs) < 1e-4, "{name}: {}", worst(&ours, theirs));
        for (i, piece) in pieces.iter().enumerate() {
            let alone = encoder.embed(std::slice::from_ref(piece)).unwrap();
            assert!(worst(&alone.get(0), &theirs.get(i as i64)) < 1e-4, "{name}: piece {i} alone");
        }
        assert_eq!(encoder.embed(&[]).unwrap().size(), [0, width]);
        let error = encoder.embed(&[Patches::new(64)]).unwrap_err().to_string();
        assert_eq!(error, "piece 0 has no patches");
    }
}

#[test]
fn features_in_half_precision_point_the_same_way() {
    let golden = golden();
    for kind in [Kind::BFloat16, Kind::Half] {
        let encoder = MusicEncoder::load(&file("clamp2.pth"), Device::Cpu, kind).unwrap();
        let ours = encoder.embed(&pieces(&golden)).unwrap();
        let cosine = Tensor::cosine_similarity(&ours, &golden["features/clamp2"], 1, 1e-8);
        assert!(ours.kind() == Kind::Float && cosine.min().double_value(&[]) > 0.999, "{kind:?}: {cosine}");
    }
}

#[test]
fn loss_is_within_1e_5_and_gradients_within_1e_4_relative() {
    let golden = golden();
    let batch = || M3Batch::new(&masked(&golden), 64, 16).unwrap();
    assert_eq!(batch().tokens, golden["tokens"].int64_value(&[]));
    let theirs = golden["loss"].double_value(&[]);
    for checkpointing in [None, Some(Checkpointing { seed: 1, autocast: Kind::Float, distinct_seeds: true })] {
        let model = network(0.0);
        let loss = model.loss(&batch(), Mode { train: true, checkpointing }).unwrap().mean().unwrap();
        let ours = loss.double_value(&[]);
        assert!((ours - theirs).abs() < 1e-5 * theirs, "loss {ours} here, {theirs} in PyTorch");
        loss.backward();
        for (name, parameter) in model.parameters() {
            let Some(expected) = golden.get(&format!("gradient/{name}")) else {
                assert!(UNUSED_PARAMETERS.contains(&name.as_str()), "{name}");
                assert!(!parameter.grad().defined(), "{name}");
                continue;
            };
            let norm = golden[&format!("gradient_norm/{name}")].double_value(&[]);
            let gradient = parameter.grad();
            let ours = gradient.norm().double_value(&[]);
            // The keys' biases have no influence on attention: their gradient is rounding alone.
            assert!((ours - norm).abs() <= 1e-4 * norm + 1e-7, "{name}: norm {ours} here, {norm} in PyTorch");
            let difference = (gradient.flatten(0, -1).slice(0, 0, None, 61) - expected).norm().double_value(&[]);
            assert!(difference <= 1e-4 * norm + 1e-7, "{name}: gradient off by {difference} of {norm}");
        }
    }
}

#[test]
fn pytorch_loads_our_weights_and_reads_our_features_and_we_read_numpys() {
    let folder = tempfile::tempdir().unwrap();
    let (saved, feature) = (folder.path().join("m3.pth"), folder.path().join("f.npy"));
    let model = network(0.1);
    let parts = CheckpointParts { model: model.state_dict(), epoch: Some(1), ..CheckpointParts::default() };
    weights::save_checkpoint(&saved, &parts).unwrap();
    let numbers: Vec<f32> = (0..7).map(|i| i as f32 / 3.0).collect();
    features::write(&feature, &numbers).unwrap();
    let theirs = folder.path().join("numpy");
    std::fs::create_dir(&theirs).unwrap();

    let out = python::run("m3_check.py", &[&saved, &feature, &theirs]);
    let out: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let loss = golden()["loss"].double_value(&[]);
    assert!((out["loss"].as_f64().unwrap() - loss).abs() < 1e-5, "{out}");
    let read: Vec<f32> = serde_json::from_value(out["feature"].clone()).unwrap();
    assert_eq!((read, &out["rest"]), (numbers, &serde_json::json!(["epoch"])));

    let read = features::read_folder(&theirs).unwrap();
    assert_eq!(read.features, [("one".to_owned(), vec![0.0, 0.25, 0.5, 0.75, 1.0])]);
    let told: Vec<String> = read.damaged.iter().map(ToString::to_string).collect();
    for (told, reason) in told.iter().zip([
        "double.npy: its numbers are \"<f8\"",
        "flat.npy: its shape is (5,)",
        "objects.npy: its numbers",
    ]) {
        assert!(told.contains(reason), "{told}");
    }
    assert_eq!(told.len(), 3);
    // It goes round: what was written is loaded again, the unused parameters too.
    let again = weights::load_m3(&saved, Device::Cpu).unwrap();
    for ((name, a), (_, b)) in again.state_dict().iter().zip(model.state_dict()) {
        assert!(a.equal(&b), "{name}");
    }
}

#[test]
fn names_and_the_number_of_parameters_are_the_originals() {
    let model = network(0.0);
    let ours: Vec<_> = model.parameters().iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
    assert_eq!(ours, SIZES.parameters());
    // 85.9M of BERT's encoder with its pooler, 6.3M of patches, 21.5M of the decoder.
    assert_eq!((M3Architecture::default().parameter_count() as f64 / 1e6).round(), 114.0);
}

type State = Vec<(String, Tensor)>;

#[test]
fn other_networks_and_broken_files_are_refused_by_name() {
    let load = |path: &Path| MusicEncoder::load(path, Device::Cpu, Kind::Float).err().unwrap().to_string();
    assert!(load(&file("model.pth")).ends_with("model.pth: these are the weights of NotaGen, not of CLaMP 2 or M3"));
    let error = weights::load_m3(&file("clamp2.pth"), Device::Cpu).err().unwrap().to_string();
    assert!(error.ends_with("clamp2.pth: these are the weights of CLaMP 2, not of M3, which has a decoder"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.pth");
    let write = |change: &dyn Fn(&mut State)| {
        let mut model = network(0.0).state_dict();
        change(&mut model);
        weights::save_checkpoint(&path, &CheckpointParts { model, ..CheckpointParts::default() }).unwrap();
        load(&path)
    };
    let error = write(&|state| state.retain(|(name, _)| !name.ends_with("layer.0.intermediate.dense.bias")));
    assert!(error.contains("`encoder.base.encoder.layer.0.intermediate.dense.bias` is missing"), "{error}");
    let error = write(&|state| state.push(("encoder.extra".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)))));
    assert!(error.contains("M3 of these sizes has no tensor `encoder.extra`"), "{error}");
    let error = write(&|state| {
        let cut = state.iter_mut().find(|(name, _)| name.ends_with("layer.1.output.dense.weight")).unwrap();
        cut.1 = cut.1.narrow(1, 0, 100);
    });
    assert!(error.contains("layer.1.output.dense.weight` has shape [128, 100], expected [128, 512]"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_text_model_is_passed_over_without_being_read() {
    const TEXT: usize = 32 << 20;
    let state = weights::load_state(&file("clamp2.pth")).unwrap();
    let mut model: State =
        state.iter().map(|(name, _)| (name.to_owned(), state.load(name, Device::Cpu).unwrap().unwrap())).collect();
    let text = Tensor::ones([TEXT as i64 / 4], (Kind::Float, Device::Cpu));
    model.push(("text_model.embeddings.word_embeddings.weight".into(), text));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clamp2.pth");
    weights::save_checkpoint(&path, &CheckpointParts { model, ..CheckpointParts::default() }).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > TEXT as u64);

    let read = || {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse::<usize>().unwrap()
    };
    let before = read();
    let encoder = MusicEncoder::load(&path, Device::Cpu, Kind::Float).unwrap();
    let music = read() - before;
    assert!((500_000..TEXT / 2).contains(&music), "{music} bytes were read");
    let expected = &golden()["features/clamp2"];
    assert!(worst(&encoder.embed(&pieces(&golden())).unwrap(), expected) < 1e-4);
}
