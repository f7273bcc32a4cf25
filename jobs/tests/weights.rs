//! The commands around weights and pieces.
#![allow(clippy::unwrap_used, clippy::panic)]
mod common;

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use common::{Workplace, root};

const PIECE: &str = "data/augmented/C/bach_00_C.abc";

/// A workplace and the weights of a network of 48 patches.
fn pretrained() -> (Workplace, String) {
    let workplace = Workplace::new();
    workplace.good(&["tiny.yaml", "--until", "pretrain"]);
    let weights = workplace.published("tiny-pretrain").display().to_string();
    (workplace, weights)
}

#[test]
fn weights_are_inspected_exported_and_used() {
    let (workplace, weights) = pretrained();

    let inspection = &workplace.good(&["weights", "inspect", &weights, "--json"]).objects()[0];
    assert_eq!(inspection["kind"], "notagen");
    assert_eq!((&inspection["patch_length"], &inspection["hidden_size"]), (&48.into(), &64.into()));
    assert_eq!(inspection["dtype"], "float32");
    assert!(inspection["min_eval_loss"].as_f64().unwrap() < 5.0);
    let plan = &workplace.good(&["plan", "tiny.yaml", "--json"]).objects()[1];
    assert_eq!(plan["cost"]["parameters"], inspection["parameters"]);

    workplace.good(&["weights", "export", &weights, "--output", "half.safetensors", "--dtype", "fp16"]);
    let half = &workplace.good(&["weights", "inspect", "half.safetensors", "--json"]).objects()[0];
    assert_eq!(half["dtype"], "float16");

    let of = |weights: &str| {
        let fields = workplace.good(&["logprob", "--weights", weights, PIECE, "--device", "cpu", "--json"]).objects();
        assert_eq!(fields[0]["path"], PIECE);
        assert!(fields[0]["patches"].as_u64().unwrap() > 10);
        assert_eq!(fields[0]["truncated"], false);
        let (logp, tokens) = (fields[0]["logp"].as_f64().unwrap(), fields[0]["tokens"].as_f64().unwrap());
        assert!((fields[0]["loss"].as_f64().unwrap() + logp / tokens).abs() < 1e-9);
        logp
    };
    let (full, half) = (of(&weights), of("half.safetensors"));
    assert!(full < -10.0 && (full / half - 1.0).abs() < 0.02, "{full} {half}");
}

#[test]
fn logprob_says_that_a_piece_is_cut_and_where_one_is_not_utf_8() {
    let (workplace, weights) = pretrained();
    let music = workplace.read(PIECE);
    workplace.write("long.abc", &format!("{music}{}", "[V:1]C2C2|[V:2]C2C2|\n".repeat(60)));
    let long = workplace.good(&["logprob", "--weights", &weights, "long.abc", "--device", "cpu", "--json"]);
    assert_eq!((&long.objects()[0]["truncated"], &long.objects()[0]["patches"]), (&true.into(), &48.into()));
    assert!(long.stderr().contains("warning: long.abc: only its first 48 patches are scored"), "{}", long.stderr());
    fs::write(workplace.path("latin.abc"), [music.as_bytes(), b"\xe9"].concat()).unwrap();
    let line = format!("latin.abc: line {}: not UTF-8 (byte {} of the file)", music.lines().count() + 1, music.len());
    workplace.run(&["logprob", "--weights", &weights, "latin.abc", "--device", "cpu"]).fails(1, &line, "");
}

#[test]
fn an_export_overwrites_nothing_that_it_reads_and_makes_its_folder() {
    let (workplace, weights) = pretrained();
    let before = fs::read(workplace.path(&weights)).unwrap();
    std::os::unix::fs::symlink(&weights, workplace.path("link.pth")).unwrap();
    workplace.good(&["weights", "export", &weights, "--output", "new/half.safetensors", "--dtype", "fp16"]);
    for (file, output) in
        [(&*weights, &*weights), (&weights, "link.pth"), ("new/half.safetensors", "./new/../new/half.safetensors")]
    {
        let refused = workplace.run(&["weights", "export", file, "--output", output]);
        refused.fails(2, "is the file to be read: it is not overwritten", "choose another --output");
    }
    assert!(fs::read(workplace.path(&weights)).unwrap() == before);
    fs::copy(workplace.path(&weights), workplace.path("copy.pth")).unwrap();
    workplace.good(&["weights", "export", &weights, "--output", "copy.pth"]);
    workplace.run(&["weights", "export", &weights, "--output", "w.bin"]).fails(
        1,
        "w.bin: its extension is neither .pth nor .safetensors",
        "end the name with .pth",
    );
}

#[test]
fn a_name_that_contradicts_the_tensors_stops_whatever_would_use_them() {
    let (workplace, weights) = pretrained();
    let misnamed = "weights_notagen_x_p_size_16_p_length_64_p_layers_1_c_layers_1_h_size_64.pth";
    fs::copy(workplace.path(&weights), workplace.path(misnamed)).unwrap();
    let said = "the name says p_length 64, the tensors say 48";
    let inspection = workplace.good(&["weights", "inspect", misnamed, "--json"]);
    assert!(inspection.objects()[0]["warnings"][0].as_str().unwrap().ends_with(said));
    assert!(inspection.stderr().contains("warning: ") && !inspection.stderr().contains("warnings"));
    for arguments in [
        &["logprob", "--weights", misnamed, PIECE][..],
        &["generate", "--weights", misnamed, "--output", "none", "--samples", "1"],
        &["demo", "--weights", misnamed],
        &["tiny.yaml", "--only", "pretrain", "--fresh", "--set", &format!("pretrain.init={misnamed}")],
    ] {
        let error = format!("{misnamed}: {said}");
        workplace.run(arguments).fails(1, &error, "rename the file");
    }
}

#[test]
fn pieces_are_generated_alike_and_only_those_that_are_missing() {
    let (workplace, weights) = pretrained();
    let generate = |output: &str, more: &[&str]| {
        let base =
            ["generate", "--weights", &weights, "--output", output, "--seed", "5", "--max-patches", "10", "--json"];
        workplace.run(&[&base, more].concat())
    };
    let first = generate("one", &["--samples", "4"]);
    assert_eq!(first.code(), 0, "{}", first.stderr());
    let summary = &first.objects()[0];
    assert_eq!(summary["pieces"], 4);
    for field in ["failed", "patches", "seconds", "patches_per_second"] {
        assert!(summary[field].is_number(), "{summary}");
    }
    assert_eq!(workplace.json("one/summary.json")["pieces"], 4);
    generate("two", &["--samples", "2", "--batch-size", "1"]);
    for piece in ["original/00001.abc", "original/00002.abc", "interleaved/00002.abc"] {
        assert_eq!(workplace.read(&format!("one/{piece}")), workplace.read(&format!("two/{piece}")));
    }
    let more = generate("two", &["--samples", "4"]);
    assert!(more.stderr().contains("2 pieces to write"), "{}", more.stderr());
    assert_eq!(workplace.read("one/original/00004.abc"), workplace.read("two/original/00004.abc"));
    generate("two", &["--samples", "4", "--temperature", "0.5"]).fails(
        2,
        "two has pieces of other weights or settings",
        "--output",
    );
    for shard in ["1/2", "0/2"] {
        generate("shards", &["--samples", "4", "--shard", shard]);
    }
    for piece in ["00001", "00002", "00003", "00004"].map(|piece| format!("original/{piece}.abc")) {
        assert_eq!(workplace.read(&format!("one/{piece}")), workplace.read(&format!("shards/{piece}")));
    }
    assert_eq!(workplace.json("shards/summary-1-of-2.json")["pieces"], 2);
    generate("four", &["--samples", "1", "--shard", "2/2"]).fails(2, "0/4", "");
    generate("three", &["--samples", "1", "--top-p", "0"]).fails(2, "top_p", "");
    workplace.run(&["generate", "--weights", "no.pth", "--output", "o", "--samples", "1"]).fails(1, "no.pth", "");
    assert!(!workplace.path("o").exists(), "a folder for nothing");

    generate("given-up", &["--samples", "1", "--max-characters", "5"]).fails(
        1,
        "no piece was written",
        "max_characters",
    );
    generate("greek", &["--samples", "1", "--prompt", "Ä_b_c"]).fails(2, "'Ä'", "");
}

#[test]
fn pieces_begin_with_prompts_or_with_another_piece() {
    let (workplace, weights) = pretrained();
    let generate = |output: &str, more: &[&str]| {
        let base = ["generate", "--weights", &weights, "--output", output, "--max-patches", "8", "--samples", "2"];
        workplace.run(&[&base, more].concat())
    };
    workplace.write("prompts.txt", "Baroque_Bach, Johann Sebastian_Choral\n\nRomantic_Brahms, Johannes_Keyboard\n");
    assert_eq!(generate("prompted", &["--prompts", "prompts.txt"]).code(), 0);
    assert!(workplace.read("prompted/original/00001.abc").starts_with("%Baroque\n%Bach, Johann Sebastian\n%Choral\n"));
    assert!(workplace.read("prompted/original/00002.abc").starts_with("%Romantic\n"));
    workplace.write("none.txt", "\n");
    generate("none", &["--prompts", "none.txt"]).fails(1, "none.txt: no prompts", "Period_Composer");

    // Standard ABC becomes the form that the network writes.
    let score = "scores/bach_00.abc";
    assert_eq!(generate("continued", &["--continue", score]).code(), 0);
    let bar = workplace.read("data/augmented/C/bach_00_C.abc");
    let bar = bar.lines().find(|line| line.starts_with("[V:1]")).unwrap();
    assert!(workplace.read("continued/original/00001.abc").contains(bar), "{bar}");
    // So does MusicXML.
    let score = include_str!("../../notation/tests/golden/musicxml/two_staves.xml");
    workplace.write("score.musicxml", score);
    assert_eq!(generate("xml", &["--continue", "score.musicxml"]).code(), 0);
    let bars = notation::preprocess::convert(score.as_bytes(), notation::preprocess::Keys::Original).unwrap().reduced;
    let bar = bars[0].1.lines().find(|line| line.starts_with("[V:1]")).unwrap();
    assert!(workplace.read("xml/original/00001.abc").contains(bar), "{bar}");
    workplace.write("empty.musicxml", "<?xml version='1.0'?><score-partwise/>");
    let refused = generate("empty", &["--continue", "empty.musicxml"]);
    refused.fails(1, "empty.musicxml: line 1, column 22: the score has no notes", "");
    workplace.write("note.abc", "X:1\nL:1/8\nK:C\n[V:1]\"♪\"C4|\n");
    generate("note", &["--continue", "note.abc"]).fails(1, "note.abc: line 4, column 7: the character '♪'", "");
}

#[test]
fn preprocess_writes_folders_and_indexes() {
    let workplace = Workplace::new();
    workplace.write("scores/broken.abc", "no music\n");
    let arguments =
        ["preprocess", "--scores", "scores", "--interleaved", "i", "--augmented", "a", "--eval-split", "0.25"];
    let run = workplace.good(&[&arguments[..], &["--json"]].concat());
    let fields = &run.objects()[0];
    assert_eq!((&fields["pieces"], &fields["refused"]), (&12.into(), &1.into()), "{}", run.stderr());
    assert!(run.stderr().contains("refused: scores/broken.abc"), "{}", run.stderr());
    assert_eq!(workplace.read("a_train.jsonl").lines().count(), 9);
    assert_eq!(workplace.read("a_eval.jsonl").lines().count(), 3);
    assert!(workplace.path("i/bach_00.abc").is_file() && workplace.path("a/Bb/bach_00_Bb.abc").is_file());
    workplace.run(&["preprocess", "--scores", "none", "--interleaved", "i", "--augmented", "a"]).fails(1, "none", "");
}

/// Files of full size as PyTorch lays them out: names, shapes, types, optimizer state. The numbers are holes in them.
#[test]
fn the_layout_of_every_published_file_is_known() {
    let workplace = Workplace::empty();
    let catalogue = workplace.good(&["weights", "fetch", "--json"]).objects();
    assert_eq!(catalogue.len(), 8);
    fs::create_dir(workplace.path("checkpoints")).unwrap();
    let mut python = Command::new("python3")
        .arg(root().join("scripts/large_checkpoint.py"))
        .args(["headers".as_ref(), workplace.path("checkpoints").as_os_str()])
        .env("PYTHONPATH", root().join(".tools/python"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut entries = python.stdin.take().unwrap();
    catalogue.iter().for_each(|entry| writeln!(entries, "{entry}").unwrap());
    drop(entries);
    assert!(python.wait().unwrap().success());
    for entry in &catalogue {
        let path = entry["path"].as_str().unwrap();
        let found = &workplace.good(&["weights", "inspect", path, "--json"]).objects()[0];
        for key in ["kind", "patch_size", "patch_length", "patch_layers", "char_layers", "hidden_size"] {
            assert_eq!(found[key], entry[key], "{key} of {path}");
        }
        assert_eq!(found["dtype"], "float32");
        let parameters = found["parameters"].as_u64().unwrap();
        let file = fs::metadata(workplace.path(path)).unwrap();
        // CLaMP-DPO saves weights alone; the others have two moments with them.
        let copies = if ["notagen-rl3", "notagen-x"].contains(&entry["name"].as_str().unwrap()) { 1 } else { 3 };
        assert_eq!(file.len() / (parameters * 4), copies, "{path}: {} bytes", file.len());
        assert_eq!((found["epoch"].is_null(), found["min_eval_loss"].is_null()), (copies == 1, copies == 1));
        // That it is a hole saves a minute, and 26 GB of disk.
        assert!(file.blocks() * 512 < 1 << 30, "{path} takes {} bytes", file.blocks() * 512);
    }
    assert!(workplace.good(&["weights", "fetch", "--json"]).objects().iter().all(|entry| entry["here"] == true));
}
