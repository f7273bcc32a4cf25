//! Recipes and command lines that are wrong say where, what and what was meant; the recipes of the project are right.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use common::{Workplace, root};

fn wrong(recipe: &str, place: &str, error: &str, hint: &str) {
    let workplace = Workplace::empty();
    workplace.write("r.yaml", recipe);
    workplace.run(&["validate", "r.yaml"]).fails(2, &format!("r.yaml{place}: {error}"), hint);
}

#[test]
fn an_unknown_key_names_its_place_and_the_nearest_key() {
    wrong(
        "name: a\nmodel: small\nstages:\n  - finetune:\n      init: x.pth\n      train: a\n      learning_rat: 1\n",
        ":7:7",
        "unknown key `learning_rat`",
        "did you mean `learning_rate`?",
    );
    let workplace = Workplace::empty();
    workplace.write("r.yaml", "nam: a\nstages: []\n");
    for arguments in [&["plan", "r.yaml"][..], &["r.yaml"], &["r.yaml", "--dry-run"]] {
        workplace.run(arguments).fails(2, "r.yaml:1:1: unknown key `nam`", "");
    }
    assert!(!workplace.path("runs").exists());
    wrong("nam: a\nstages: []\n", ":1:1", "unknown key `nam`", "did you mean `name`?");
    wrong("name: a\nmodel: {hiden_size: 64}\nstages: []\n", ":2:9", "unknown key `hiden_size`", "`hidden_size`");
    wrong(
        "name: a\nstages:\n  - generate:\n      sampling: {topk: 3}\n",
        ":4:18",
        "unknown key `topk`",
        "did you mean `top_k`?",
    );
}

#[test]
fn an_unknown_word_names_its_place_and_the_nearest_word() {
    wrong("name: a\nstages:\n  - finetun:\n      train: a\n", ":3:5", "unknown kind of stage `finetun`", "`finetune`");
    wrong("name: a\nmodel: smal\nstages: []\n", ":2:1", "unknown word `smal`", "`small`");
    wrong("name: a\nprecision: fp61\nstages: []\n", ":2:12", "unknown word `fp61`", "`fp16`");
}

#[test]
fn values_of_the_wrong_type_or_range_name_place_and_key() {
    let training = |line: &str| {
        format!("name: a\nmodel: small\nstages:\n  - pretrain:\n      train: a\n      eval: b\n      {line}\n")
    };
    wrong(&training("learning_rate: -1"), ":7:22", "`learning_rate`: -1 is not above 0", "");
    wrong(
        &training("batch_size: 0"),
        ":7:7",
        "`batch_size`: integer `0` where a whole number of at least 1 should be",
        "",
    );
    wrong(&training("warmup_steps: many"), ":7:21", "`warmup_steps`: this is not a whole number", "");
    wrong(&training("learning_rate: [1]"), ":7:22", "`learning_rate`: a single value should be here", "");
    wrong("name: a\nseed: hello\nstages: []\n", ":2:7", "`seed`: this is not a whole number", "");
    wrong("name: a\nmodel: [1]\nstages: []\n", ":2:1", "`model`: sequence where small, medium, large or a map", "");
}

#[test]
fn missing_and_repeated_keys_are_named() {
    let stage = |keys: &str| format!("name: a\nmodel: small\nstages:\n  - finetune:\n{keys}");
    wrong(&stage("      init: x\n      eval: b\n"), ":6:7", "missing key `train`", "");
    wrong(&stage("      init: x\n      train: a\n      train: a\n"), ":7:7", "the key `train` is given twice", "");
    wrong("name: a\nstages: [pretrain: {train: a, eval: b}]\n", "", "the key `model` is missing", "model: small");
    wrong("stages: []\n", ":1:1", "missing key `name`", "");
}

#[test]
fn what_is_no_yaml_or_no_list_of_stages_is_told() {
    wrong("name: a\nstages: [\n", ":2:9", "", "");
    wrong("", ":1:1", "", "");
    wrong("name: a\nstages:\n  - finetune\n", ":4:1", "a map of keys should be here", "- finetune:");
    wrong(
        "name: a\nstages:\n  - preprocess: {scores: a, interleaved: b, augmented: c}\n    finetune: {}\n",
        ":4:5",
        "a stage is a map with one key",
        "",
    );
    wrong("name: a\nstages: []\n", "", "`stages` is empty", "finetune");
}

#[test]
fn keys_that_do_not_go_together_are_told() {
    let stages = |stages: &str| format!("name: a\nmodel: small\nstages:\n{stages}");
    wrong(
        &stages("  - pretrain: {train: a, epochs: 1, steps: 2}\n"),
        "",
        "stage `pretrain`: both `epochs` and `steps`",
        "",
    );
    wrong(
        &stages("  - finetune: {train: a}\n"),
        "",
        "stage `finetune`: the key `init` is missing",
        "put a training stage",
    );
    wrong(
        &stages("  - pretrain: {train: a}\n  - generate: {init: \"stage:pretran\"}\n"),
        "",
        "stage `generate`: `init`: no earlier stage called `pretran`",
        "did you mean `pretrain`?",
    );
    wrong(
        &stages("  - finetune: {train: a, init: \"hf://a/b\"}\n"),
        "",
        "stage `finetune`: `init`: `hf://a/b` is not of the form hf://owner/repo/file",
        "",
    );
    wrong(
        &stages("  - pretrain: {train: a, decay_steps: 5}\n"),
        "",
        "stage `pretrain`: `decay_steps` and `decay_fraction` belong to",
        "",
    );
    wrong(
        &stages("  - pretrain: {train: a, early_stopping: 5}\n"),
        "",
        "stage `pretrain`: `early_stopping` and `evaluate_every` need `eval`",
        "",
    );
    wrong(
        &stages("  - pretrain: {train: a, batch_size: 3, accumulation_steps: 2}\n"),
        "",
        "stage `pretrain`: `batch_size` 3 does not divide",
        "",
    );
    wrong(
        &stages("  - pretrain: {train: a}\n  - pretrain: {train: a, name: pretrain}\n"),
        "",
        "two stages are called",
        "",
    );
    wrong("name: a/b\nstages: []\n", "", "name `a/b` is not a plain word", "");
    wrong("name: a\nmodel: {hidden_size: 100}\nstages: [pretrain: {train: a}]\n", "", "model: hidden_size is 100", "");
}

#[test]
fn a_second_stage_of_a_kind_is_numbered() {
    let workplace = Workplace::empty();
    workplace.write("r.yaml", "name: a\nmodel: small\nstages: [pretrain: {train: a}, pretrain: {train: b}]\n");
    let valid = workplace.good(&["validate", "r.yaml", "--json"]);
    assert_eq!(valid.objects()[0]["stages"], serde_json::json!(["pretrain", "pretrain-2"]));
    let plan = workplace.good(&["plan", "r.yaml", "--json"]);
    assert_eq!(plan.objects()[1]["settings"]["init"], "stage:pretrain");
}

#[test]
fn set_changes_a_key_by_the_name_or_kind_of_its_stage() {
    let workplace = Workplace::new();
    let plan = workplace.good(&[
        "plan",
        "tiny.yaml",
        "--json",
        "--set",
        "finetune.learning_rate=2e-5",
        "--set",
        "generate.sampling.top_k=5",
        "--set",
        "seed=9",
        "--set",
        "finetune.early_stopping=3",
        "--set",
        "model.dropout=0",
        "--set",
        "pretrain.max_grad_norm=null",
    ]);
    let stages = plan.objects();
    assert_eq!(stages[2]["settings"]["learning_rate"], 2e-5);
    assert_eq!(stages[2]["settings"]["early_stopping"], 3);
    assert_eq!(stages[3]["settings"]["sampling"]["top_k"], 5);
    assert_eq!(stages[3]["settings"]["seed"], 9);
}

#[test]
fn set_says_what_is_wrong_with_it() {
    let workplace = Workplace::new();
    let plan = |setting: &str, error: &str, hint: &str| {
        workplace.run(&["plan", "tiny.yaml", "--set", setting]).fails(2, &format!("--set {setting}: {error}"), hint);
    };
    plan("finetune.learning_rat=2e-5", "unknown key `learning_rat`", "did you mean `learning_rate`?");
    plan("fintune.learning_rate=2e-5", "no stage and no key is called `fintune`", "did you mean `finetune`?");
    plan("sed=1", "no stage and no key is called `sed`", "did you mean `seed`?");
    plan("pretrain=3", "`pretrain` is a stage: one of its keys can be set", "--set pretrain.KEY=VALUE");
    plan("finetune.learning_rate", "no `=`", "finetune.learning_rate=2e-5");
    plan("finetune.batch_size=0", "invalid value", "");
    plan("precision=fp8", "unknown word `fp8`", "");
    plan("generate.sampling.topk=1", "unknown key `topk`", "`top_k`");
    let both = workplace.run(&["plan", "tiny.yaml", "--set", "finetune.epochs=3"]);
    both.fails(2, "stage `finetune`: both `epochs` and `steps` are given", "");
}

#[test]
fn the_command_line_says_what_is_wrong_with_it() {
    let workplace = Workplace::new();
    workplace.run(&["paln"]).fails(2, "`paln` is neither a recipe nor a command", "did you mean `plan`?");
    for more in [&["tiny.yaml"][..], &["tiny.yaml", "--set", "seed=1"], &["--nodes", "2"]] {
        workplace.run(&[&["paln"], more].concat()).fails(
            2,
            "`paln` is neither a recipe nor a command",
            "did you mean `plan`?",
        );
    }
    workplace.run(&["weights"]).fails(2, "what to do is left out", "commands above");
    let folders = ["--reference", "a", "--features", "a", "--interleaved", "a", "--original", "a", "--output", "a"];
    workplace.run(&[&["prefer", "--select", "-0.1"], &folders[..]].concat()).fails(2, "--select -0.1: not above 0", "");
    workplace.run(&["missing.yaml"]).fails(2, "missing.yaml: no such recipe", "");
    workplace.run(&["tiny.yaml", "--form", "pretrain"]).fails(2, "unexpected argument '--form'", "--from");
    workplace.run(&["tiny.yaml", "--from", "pretran"]).fails(
        2,
        "no stage is called `pretran`",
        "did you mean `pretrain`?",
    );
    workplace.run(&["tiny.yaml", "--from", "finetune", "--until", "pretrain"]).fails(2, "later stage", "");
    workplace.run(&["tiny.yaml", "--nproc", "0"]).fails(2, "--nproc", "");
    workplace.run(&["tiny.yaml", "--only", "pretrain", "--from", "pretrain"]).fails(2, "cannot be used with", "");
    workplace.run(&["status", "nothing"]).fails(2, "nothing: no such run", "no runs yet");
    assert!(!workplace.path("runs").exists());
}

#[test]
fn the_recipes_of_the_project_are_valid() {
    let recipes: Vec<String> = std::fs::read_dir(root().join("recipes"))
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .filter(|path| path.ends_with(".yaml"))
        .collect();
    assert!(recipes.len() >= 10, "{recipes:?}");
    let arguments: Vec<&str> = std::iter::once("validate").chain(recipes.iter().map(String::as_str)).collect();
    Workplace::empty().good(&arguments);
    for recipe in &recipes {
        let text = std::fs::read_to_string(recipe).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=schema.json\n# Reproduces: "), "{recipe}");
        for what in ["\n# Needs: ", "\n# Gives: "] {
            assert!(text.contains(what), "{recipe}: {what}");
        }
    }
}

#[test]
fn the_schema_beside_the_recipes_is_that_of_the_types() {
    let printed = Workplace::empty().good(&["schema"]).0.stdout;
    let kept = std::fs::read(root().join("recipes/schema.json")).unwrap();
    assert!(printed == kept, "run `notagen-train schema > recipes/schema.json`");
}

#[test]
fn missing_data_and_weights_are_named_with_where_to_get_them() {
    let workplace = Workplace::empty();
    let recipe = root().join("recipes/schubert.yaml").display().to_string();
    let run = workplace.run(&[&recipe]);
    run.fails(
        1,
        "missing: data/schubert_scores",
        "https://huggingface.co/ElectricAlexis/NotaGen/blob/main/weights_notagen_pretrain_p_size_16",
    );
    assert!(run.stderr().contains("put it at checkpoints/weights_notagen_pretrain"), "{}", run.stderr());
    assert!(run.stderr().contains("https://drive.google.com/"), "{}", run.stderr());
    assert!(!workplace.path("runs").exists());
}

#[test]
fn data_that_nobody_publishes_is_told_with_what_to_put_where() {
    let workplace = Workplace::new();
    for (recipe, missing, hint) in [
        ("pretrain-small", "data/pretrain_scores", "put MusicXML or standard ABC of your own in data/pretrain_scores"),
        ("finetune-large", "data/finetune_scores", "put MusicXML or standard ABC of your own in data/finetune_scores"),
        ("notagen-x", "data/finetune_scores", "put MusicXML or standard ABC of your own in data/finetune_scores"),
        ("post-train-large", "data/pretrain_augmented_train.jsonl", "recipes/pretrain-large.yaml, with --only preproc"),
        ("rl-large", "data/finetune_interleaved", "recipes/finetune-large.yaml, with --only preprocess"),
    ] {
        let recipe = root().join(format!("recipes/{recipe}.yaml")).display().to_string();
        workplace.run(&[&recipe]).fails(1, missing, hint);
    }
    let other = ["tiny.yaml", "--set", "preprocess.scores=none"];
    workplace.run(&other).fails(
        1,
        "missing: none (scores of stage preprocess)",
        "put MusicXML or standard ABC in none",
    );
    workplace.run(&["tiny.yaml", "--only", "pretrain"]).fails(1, "missing: data/aug", "put what is missing there");
}

#[test]
fn doctor_says_what_there_is() {
    let workplace = Workplace::empty();
    workplace.write("data/some.jsonl", "{}\n{}\n");
    let report = &workplace.good(&["doctor", "--json"]).objects()[0];
    assert!(report["libtorch"]["version"].as_str().unwrap().starts_with("2.11.0"), "{report}");
    assert!(report["libtorch"]["problem"].is_null(), "{report}");
    let cuda = &report["cuda"];
    assert!(cuda["attention"].as_str().unwrap().starts_with("flash"), "{report}");
    let named = |card: &serde_json::Value| card["name"].is_string() && card["total_bytes"].is_u64();
    assert!(cuda["devices"].as_array().unwrap().iter().all(named), "{report}");
    assert!(cuda["usable"] == false || cuda["devices"][0]["free_bytes"].is_u64(), "{report}");
    assert!(report["memory"]["total_bytes"].as_u64().unwrap() > 1 << 30);
    assert_eq!(report["corpora"][0]["pieces"], 2);
    assert!(report["cpu"]["cores"].as_u64().unwrap() >= 1);
}
