//! Checkpoints of the original's scripts (`golden/weights_files.py`), in and out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod python;

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use model::{
    Architecture,
    architecture::{TIED, TIED_TO},
    pth::{Dict, Value},
    weights::{self, Checkpoint, CheckpointParts, Error, ExportOptions, OptimizerState, ParamGroup},
};
use serde_json::{Value as Json, json};
use tch::{Device, Kind};

struct Files {
    folder: tempfile::TempDir,
    facts: Json,
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        python::run("weights_files.py", &[folder.path()]);
        let facts = std::fs::read_to_string(folder.path().join("facts.json")).unwrap();
        Files { folder, facts: serde_json::from_str(&facts).unwrap() }
    })
}

fn path(name: &str) -> PathBuf {
    files().folder.path().join(name)
}

fn notagen() -> PathBuf {
    path(files().facts["file"].as_str().unwrap())
}

fn toy() -> Architecture {
    Architecture::sized(32, 2, 1, 64)
}

/// Compares files with the original one in PyTorch: what to check, the file, its type. Gives a line for each.
fn check(checks: &[(&str, &Path, &str)]) -> Vec<String> {
    let original = notagen();
    let arguments: Vec<_> = checks
        .iter()
        .flat_map(|(command, file, kind)| [command.as_ref(), original.as_os_str(), file.as_os_str(), kind.as_ref()])
        .collect();
    python::run::<&std::ffi::OsStr>("weights_check.py", &arguments).lines().map(String::from).collect()
}

#[test]
fn names_shapes_and_order_are_those_of_pytorch() {
    let cases = files().facts["sizes"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let sizes: Vec<i64> = serde_json::from_value(case["sizes"].clone()).unwrap();
        let architecture = Architecture::sized(sizes[0], sizes[1], sizes[2], sizes[3]);
        assert_eq!(json!(architecture.parameters()), case["parameters"]);
        assert_eq!(architecture.parameter_count(), case["count"]);
        assert_eq!(case["last"], TIED);
    }
}

#[test]
fn inspection_has_the_fields_of_the_contract() {
    let inspection = weights::inspect(&notagen()).unwrap();
    let expected = json!({
        "kind": "notagen", "parameters": files().facts["count"], "patch_size": 16, "patch_length": 32,
        "patch_layers": 2, "char_layers": 1, "hidden_size": 64, "epoch": 7, "min_eval_loss": 0.4375,
        "dtype": "float32", "warnings": [],
    });
    assert_eq!(serde_json::to_value(&inspection).unwrap(), expected);
    assert!(inspection.warnings.is_empty());
    let fields: Vec<_> = expected.as_object().unwrap().keys().cloned().collect();
    let written: Json = serde_json::from_str(&serde_json::to_string(&inspection).unwrap()).unwrap();
    assert_eq!(written.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), fields);
}

#[test]
fn every_shape_of_checkpoint_is_understood() {
    for name in ["bare.pth", "rl.pth", "wrapped.pth", "bf16.pth", "notagen.safetensors", "old_optimizer.pth"] {
        let inspection = weights::inspect(&path(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(inspection.kind.as_deref(), Some("notagen"), "{name}");
        assert_eq!(inspection.parameters, files().facts["count"], "{name}");
        assert_eq!(inspection.patch_length, Some(32), "{name}");
    }
    let numbers = |name: &str| {
        let inspection = weights::inspect(&path(name)).unwrap();
        (inspection.epoch, inspection.min_eval_loss, inspection.dtype.unwrap())
    };
    assert_eq!(numbers("bare.pth"), (None, None, "float32".into()));
    assert_eq!(numbers("wrapped.pth"), (Some(3), None, "float32".into()));
    assert_eq!(numbers("bf16.pth"), (None, Some(0.5), "bfloat16".into()));
    assert_eq!(numbers("notagen.safetensors"), (Some(5), Some(0.25), "float32".into()));
}

#[test]
fn music_encoders_are_told_from_notagen() {
    let m3 = serde_json::to_value(weights::inspect(&path("m3.pth")).unwrap()).unwrap();
    let expected = json!({
        "kind": "m3", "parameters": files().facts["m3"], "patch_size": 64, "patch_length": 12, "patch_layers": 2,
        "char_layers": 3, "hidden_size": 64, "epoch": 2, "min_eval_loss": 1.5, "dtype": "float32", "warnings": [],
    });
    assert_eq!(m3, expected);
    let clamp2 = weights::inspect(&path("clamp2.pth")).unwrap();
    assert_eq!(clamp2.kind.as_deref(), Some("clamp2"));
    assert_eq!(clamp2.parameters, files().facts["clamp2"]);
    assert_eq!((clamp2.patch_layers, clamp2.char_layers), (Some(2), None));
    let linear = weights::inspect(&path("linear.pth")).unwrap();
    assert_eq!((linear.kind, linear.parameters, linear.hidden_size), (None, 8, None));
    let error = weights::architecture(&weights::load_state(&path("m3.pth")).unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("these are the weights of M3, CLaMP 2's music encoder, not of a NotaGen"));
}

#[test]
fn a_name_that_lies_about_the_patch_length_is_a_warning_of_an_inspection_and_else_an_error() {
    let misnamed = path(files().facts["misnamed"].as_str().unwrap());
    let inspection = weights::inspect(&misnamed).unwrap();
    assert_eq!(inspection.patch_length, Some(32));
    assert!(inspection.warnings[0].ends_with("the name says p_length 64, the tensors say 32"));
    assert_eq!(serde_json::to_value(&inspection).unwrap()["warnings"], json!(inspection.warnings));
    let error = weights::load(&misnamed, Device::Cpu).err().unwrap();
    assert_eq!(error.to_string(), inspection.warnings[0]);
    assert_eq!(error.hint().as_deref(), Some("the tensors are right: rename the file"));
}

#[test]
fn unusable_weights_say_which_tensor_is_at_fault() {
    let middle = "`patch_level_decoder.base.h.1.mlp.c_fc.weight`";
    let cases = [
        ("missing.pth", format!("the tensor {middle} is missing")),
        ("gap.pth", "the tensor `patch_level_decoder.base.h.0.ln_1.weight` is missing (and 11 more)".into()),
        ("misshapen.pth", format!("{middle} has shape [64, 255], expected [64, 256]")),
        ("extra.pth", "a NotaGen of these sizes has no tensor `patch_level_decoder.extra.weight`".into()),
        ("odd.pth", "`patch_level_decoder.patch_embedding.weight` has shape [64, 2047], expected [64, 2048]".into()),
        ("m3_missing.pth", "the tensor `encoder.base.pooler.dense.bias` is missing".into()),
        ("clamp2_missing.pth", "the tensor `music_proj.bias` is missing".into()),
        ("whole.pth", "`patch_level_decoder.patch_embedding.weight` has int64, expected float32, float16".into()),
        ("fp8.pth", format!("{middle} has float8_e4m3fn, expected float32, float16")),
        ("nothing.pth", "it holds no weights (at the top there is `epoch`, `model`)".into()),
        ("list.pth", "it holds no weights (at the top there is no dict)".into()),
        ("truncated.safetensors", "the safetensors file is truncated".into()),
        ("headless.safetensors", "the safetensors file is truncated".into()),
        ("absent.pth", "cannot open: No such file or directory".into()),
    ];
    for (name, text) in cases {
        let error = weights::inspect(&path(name)).unwrap_err().to_string();
        assert!(error.contains(&text) && error.contains(name) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn an_output_layer_is_the_embedding_under_either_name() {
    let of = |name: &str| weights::load(&path(name), Device::Cpu);
    let original = weights::load_state(&notagen()).unwrap().load(TIED_TO, Device::Cpu).unwrap().unwrap();
    let (there, back) = (path("output_there.safetensors"), path("output_back.pth"));
    weights::export(&path("output_alone.pth"), &there, &ExportOptions::default()).unwrap();
    weights::export(&there, &back, &ExportOptions::default()).unwrap();
    let names =
        ["output_alone.safetensors", "output_alone.pth", "tied_apart.pth", "tied_coarsely.pth", "output_back.pth"];
    for name in names {
        let state = of(name).unwrap().state_dict();
        for tied in [TIED, TIED_TO] {
            assert_eq!(state.iter().find(|(name, _)| name == tied).unwrap().1, original, "{tied} of {name}");
        }
        assert_eq!(weights::inspect(&path(name)).unwrap().parameters, files().facts["count"]);
    }
    let error = of("untied.pth").err().unwrap();
    let text = format!("untied.pth: `{TIED}` and `{TIED_TO}` differ, and are one tensor in the network");
    assert!(error.to_string().ends_with(&text), "{error}");
    assert!(error.hint().unwrap().contains("leave"));
    assert!(weights::inspect(&path("untied.pth")).is_ok());
}

#[test]
fn tensors_are_read_by_name_with_their_shape() {
    let state = weights::load_state(&path("wrapped.pth")).unwrap();
    assert_eq!(state.len(), toy().parameters().len() + 1, "wrappers and masks are gone");
    let original = weights::load_state(&notagen()).unwrap();
    for (name, shape) in toy().parameters() {
        let tensor = state.require(&name, &shape, Device::Cpu).unwrap();
        assert_eq!(tensor, original.load(&name, Device::Cpu).unwrap().unwrap());
    }
    assert!(state.get(TIED).unwrap().same_as(state.get(TIED_TO).unwrap()));
    assert!(matches!(state.require("a", &[1], Device::Cpu), Err(Error::MissingKey { .. })));
    assert!(matches!(state.require(TIED, &[1], Device::Cpu), Err(Error::Shape { .. })));
    assert!(state.load("a", Device::Cpu).unwrap().is_none());
}

#[test]
fn optimizer_state_is_read_by_parameter() {
    let facts = &files().facts;
    for file in [notagen(), path("old_optimizer.pth")] {
        let state = weights::optimizer_state(&file).unwrap();
        assert_eq!(state.moments.len(), toy().parameters().len() - 1);
        assert!(!state.moments.contains_key(&2), "the unused wte never had a gradient");
        assert!(state.moments.values().all(|moments| moments.step == 3.0));
        let sum: f64 = state
            .moments
            .values()
            .map(|moments| moments.exp_avg.load(Device::Cpu).unwrap().sum(Kind::Double).double_value(&[]))
            .sum();
        assert!((sum - facts["exp_avg_sum"].as_f64().unwrap()).abs() < 1e-9);
        assert_eq!(state.groups, [ParamGroup::new(1e-4, toy().parameters().len())]);
    }
    let schedule = Checkpoint::open(&notagen()).unwrap().schedule().unwrap().unwrap();
    assert_eq!((schedule.last_epoch, &schedule.base_lrs[..]), (3, &[1e-4][..]));
    let text = |name: &str| weights::optimizer_state(&path(name)).unwrap_err().to_string();
    assert!(text("rl.pth").ends_with("there is no `optimizer` in it"));
    assert!(text("other_optimizer.pth").contains("has 34 parameters, the network has 46"));
    assert!(text("sgd.pth").contains("`optimizer.param_groups[0].betas` is not AdamW's"));
}

fn parts(checkpoint: &Checkpoint) -> CheckpointParts {
    let state = checkpoint.state();
    let load = |name: &str| (name.to_string(), state.load(name, Device::Cpu).unwrap().unwrap());
    let mut model: Vec<_> = toy().parameters().iter().map(|(name, _)| load(name)).collect();
    let embedding = model.iter().find(|(name, _)| name == TIED_TO).unwrap().1.shallow_clone();
    model.push((TIED.into(), embedding));
    CheckpointParts {
        model,
        optimizer: checkpoint.optimizer().unwrap(),
        schedule: checkpoint.schedule().unwrap(),
        epoch: checkpoint.epoch().unwrap(),
        best_epoch: checkpoint.best_epoch().unwrap(),
        min_eval_loss: checkpoint.min_eval_loss().unwrap(),
        notagen_train: None,
    }
}

#[test]
fn the_original_trains_on_from_a_checkpoint_written_here_as_from_its_own() {
    let mut ours = parts(&Checkpoint::open(&notagen()).unwrap());
    let (bare, copy) = (path("rewritten.pth"), path("resumable.pth"));
    weights::save_checkpoint(&bare, &ours).unwrap();
    // The same with moments in memory and an entry that the original does not know.
    let optimizer = ours.optimizer.as_mut().unwrap();
    for moments in optimizer.moments.values_mut() {
        for tensor in [&mut moments.exp_avg, &mut moments.exp_avg_sq] {
            *tensor = model::pth::TensorValue::Loaded(tensor.load(Device::Cpu).unwrap());
        }
    }
    let mut extra = Dict::new();
    extra.insert("random", Value::from(vec![1u8, 2, 255]));
    extra.insert("position", 12i64);
    ours.notagen_train = Some(extra.into());
    weights::save_checkpoint(&copy, &ours).unwrap();
    let everything = ExportOptions { everything: true, ..ExportOptions::default() };
    let exported = path("all.pth");
    weights::export(&notagen(), &exported, &everything).unwrap();
    let keys = check(&[("resume", &bare, ""), ("resume", &copy, ""), ("resume", &exported, "")]);
    assert_eq!(keys[0], "['best_epoch', 'epoch', 'lr_sched', 'min_eval_loss', 'model', 'optimizer']");
    assert!(keys[1].contains("notagen_train"));
    assert_eq!(keys[2], keys[0]);
    let reopened = Checkpoint::open(&copy).unwrap();
    let extra = reopened.entry("notagen_train").unwrap();
    assert_eq!(extra.get("random").and_then(Value::as_bytes), Some(&[1, 2, 255][..]));
    assert_eq!(extra.get("position").and_then(Value::as_i64), Some(12));
    assert_eq!(weights::inspect(&copy).unwrap().parameters, files().facts["count"]);
}

#[test]
fn weights_go_to_safetensors_and_back() {
    let names = ["there.safetensors", "back.pth", "full.pth", "again.safetensors"].map(path);
    let [there, back, full, again] = &names;
    let export = |from: &Path, to: &Path| weights::export(from, to, &ExportOptions::default()).unwrap();
    export(&notagen(), there);
    export(there, back);
    // This one comes from others, has their metadata, and leaves the tied output layer out.
    export(&path("notagen.safetensors"), full);
    export(full, again);
    let rest = check(&names.each_ref().map(|file| ("same", file.as_path(), "float32")));
    assert_eq!(rest[0], "[('best_epoch', '7'), ('epoch', '7'), ('format', 'pt'), ('min_eval_loss', '0.4375')]");
    assert_eq!(rest[1], "[('best_epoch', 7), ('epoch', 7), ('min_eval_loss', 0.4375)]");
    assert_eq!(rest[2], "[('epoch', 5), ('metadata', {'note': 'kept'}), ('min_eval_loss', 0.25)]");
    assert_eq!(rest[3], "[('epoch', '5'), ('format', 'pt'), ('min_eval_loss', '0.25'), ('note', 'kept')]");
}

#[test]
fn damaged_headers_and_entries_never_crash_an_inspection() {
    for (name, rounds) in [("notagen.safetensors", 4000), ("bare.pth", 1000)] {
        let whole = std::fs::read(path(name)).unwrap();
        let scratch = path(&format!("damaged {name}"));
        std::fs::write(&scratch, &whole).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&scratch).unwrap();
        // The header of one, the pickle of the other.
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..rounds {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = random % 5000;
            let byte = whole[at as usize];
            file.write_all_at(&[byte ^ (1 << (random >> 61)) as u8], at).unwrap();
            if let Err(error) = weights::inspect(&scratch) {
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
            }
            file.write_all_at(&[byte], at).unwrap();
        }
        assert_eq!(weights::inspect(&scratch).unwrap().parameters, files().facts["count"]);
    }
}

#[test]
fn weights_are_exported_in_the_type_asked_for() {
    let full = weights::inspect(&notagen()).unwrap();
    let cases = [
        ("bfloat16", path("bfloat16.pth")),
        ("float16", path("float16.pth")),
        ("bfloat16", path("bfloat16.safetensors")),
        ("float16", path("float16.safetensors")),
    ];
    for (name, output) in &cases {
        let options = ExportOptions { kind: model::pth::kind_from_name(name), ..ExportOptions::default() };
        weights::export(&notagen(), output, &options).unwrap();
        let inspection = weights::inspect(output).unwrap();
        assert_eq!(inspection.dtype.as_deref(), Some(*name));
        assert_eq!(inspection.parameters, full.parameters);
    }
    check(&cases.each_ref().map(|(name, output)| ("same", output.as_path(), *name)));
}

#[test]
fn exports_that_make_no_sense_are_refused() {
    let refused = |name: &str, options: ExportOptions| {
        weights::export(&notagen(), &path(name), &options).unwrap_err().to_string()
    };
    let everything = ExportOptions { everything: true, ..ExportOptions::default() };
    assert!(refused("all.safetensors", everything).contains("safetensors holds weights alone"));
    for name in ["all.txt", "all.bin", "all"] {
        assert!(refused(name, ExportOptions::default()).contains("neither .pth nor .safetensors"));
    }
    let whole = ExportOptions { kind: Some(Kind::Int64), ..ExportOptions::default() };
    assert!(refused("all.pth", whole).contains("float32, bfloat16 or float16"));
}

#[test]
fn a_new_optimizer_is_what_pytorch_would_save_before_its_first_step() {
    let state = OptimizerState { groups: vec![ParamGroup::new(1e-4, 3)], ..OptimizerState::default() };
    let value = state.to_value();
    let group = &value.get("param_groups").and_then(Value::as_items).unwrap()[0];
    let keys: Vec<_> = group.as_dict().unwrap().text_entries().map(|(key, _)| key).collect();
    assert_eq!(
        keys.join(" "),
        "lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused decoupled_weight_decay params"
    );
    assert!(value.get("state").and_then(Value::as_dict).unwrap().is_empty());
}
