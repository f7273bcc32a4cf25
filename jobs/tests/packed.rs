//! Pieces in augmented folders, moved as they are read, and packed: what comes of them is the same.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
mod common;

use common::{TINY, Workplace};

/// Writes the tiny recipe with other keys for its preprocess stage, and trains in many keys.
fn trained(preprocess: &str) -> Workplace {
    let place = Workplace::new();
    let recipe = TINY.replacen("      interleaved: data/interleaved\n", preprocess, 1);
    place.write("tiny.yaml", &recipe.replacen("key_augmentation: none", "key_augmentation: nearby", 1));
    place.write(
        "prompts.csv",
        "piece,period,composer,instrumentation\nbach_03,Baroque,\"Bach, Johann Sebastian\",Chamber\n",
    );
    place.good(&["tiny.yaml", "--until", "pretrain", "--set", "preprocess.prompts=prompts.csv"]);
    place
}

#[test]
fn the_network_is_the_same_whatever_form_its_pieces_have() {
    let weights = |place: &Workplace| std::fs::read(place.path("runs/tiny/02-pretrain/checkpoints/best.pth")).unwrap();
    let written = trained("      interleaved: data/interleaved\n");
    let piece = written.read("data/augmented/D/bach_03_D.abc");
    assert!(piece.starts_with("%Baroque\n%Bach, Johann Sebastian\n%Chamber\n%%score"), "{piece}");

    let read = trained("      interleaved: data/interleaved\n      keys: none\n");
    assert!(read.read("data/augmented_train.jsonl").contains("\"data/interleaved/haydn_"));
    assert!(!read.path("data/augmented").exists());
    assert!(weights(&written) == weights(&read));

    let packed = trained("      pack: data/pieces.pack\n");
    assert!(packed.read("data/augmented_train.jsonl").contains("\"data/pieces.pack/haydn_"));
    assert!(!packed.path("data/augmented").exists() && !packed.path("data/interleaved").exists());
    assert!(weights(&written) == weights(&packed));
    // Done, and not for ever: a pack that is gone is made again.
    let plan = |place: &Workplace| {
        place.good(&["plan", "tiny.yaml", "--until", "preprocess", "--set", "preprocess.prompts=prompts.csv"]).stderr()
    };
    std::fs::remove_file(packed.path("data/pieces.pack")).unwrap();
    assert!(plan(&packed).contains("its output data/pieces.pack is missing"), "{}", plan(&packed));
}

#[test]
fn a_judge_reads_packs() {
    const RECIPE: &str = "name: judge\ndevice: cpu\nstages:\n  - preprocess: {scores: scores, OUTPUT, augmented: data/a}\n  \
                          - m3: {train: INPUT, patch_length: 40, patch_layers: 1, token_layers: 1, hidden_size: 64, \
                          warmup_steps: 1, batch_size: 4, steps: 3, eval_split: 0.25}\n  \
                          - features: {weights: \"stage:m3\", input: INPUT, pieces: \"bach_*\", output: data/features}\n";
    let judged = |output: &str, input: &str| {
        let place = Workplace::new();
        place.write("judge.yaml", &RECIPE.replace("OUTPUT", output).replace("INPUT", input));
        place.good(&["judge.yaml"]);
        place
    };
    let folder = judged("interleaved: data/i", "data/i");
    let pack = judged("pack: data/i.pack", "data/i.pack");
    for piece in 0..8 {
        let feature =
            |place: &Workplace| std::fs::read(place.path(&format!("data/features/bach_{piece:02}.npy"))).unwrap();
        assert!(feature(&folder) == feature(&pack));
    }
    assert_eq!(std::fs::read_dir(pack.path("data/features")).unwrap().count(), 8);
    let again =
        pack.good(&["features", "--weights", &pack.m3(), "--input", "data/i.pack", "--output", "f", "--device", "cpu"]);
    assert!(again.stderr().contains("12 features in f"), "{}", again.stderr());

    let checked = pack.good(&["check", "data/i.pack", "--json"]).objects();
    assert_eq!((checked.len(), checked[0]["path"].as_str()), (12, Some("data/i.pack/bach_00.abc")));
    assert!(checked.iter().all(|line| line["form"] == "interleaved" && line["durations"] == true));
    for (to, end) in [("abc", "abc"), ("midi", "mid")] {
        pack.good(&["convert", "--to", to, "--output", "out", "data/i.pack"]);
        assert!(pack.path(&format!("out/haydn_11.{end}")).is_file());
    }
    assert_eq!(pack.read("out/bach_00.abc"), folder.read("data/i/bach_00.abc"));
    pack.write("broken.pack", &"x".repeat(100));
    pack.run(&["check", "broken.pack"]).fails(1, "broken.pack: not a packed corpus", "--pack FILE");
}

#[test]
fn the_command_packs_and_refuses_what_does_not_go_together() {
    let place = Workplace::new();
    place.write("scores/twin.abc", &place.read("scores/bach_00.abc").replace("T:Piece", "T:Another"));
    let base = ["preprocess", "--scores", "scores", "--augmented", "a", "--pack", "p/all.pack", "--json"];
    let fields = &place.good(&base).objects()[0];
    assert_eq!((&fields["pieces"], &fields["duplicates"]), (&12.into(), &1.into()), "{fields}");
    assert!(place.read("a_report.jsonl").contains("\"duplicate_of\":\"bach_00\""));
    place.write("p.csv", "piece,period,composer,instrumentation\nbach_00,Baroque,Bach, J. S.,Choral\n");
    let prompts = [&base[..], &["--prompts", "p.csv"]].concat();
    place.run(&prompts).fails(1, "p.csv: line 2, column 5: 5 fields, not 4", "in quotes");
    place.run(&["preprocess", "--scores", "scores", "--augmented", "a"]).fails(2, "--interleaved", "");
    let other = ["preprocess", "--scores", "scores", "--augmented", "a", "--pack", "scores/bach_00.abc"];
    place.run(&other).fails(1, "scores/bach_00.abc: not a packed corpus", "");
}
