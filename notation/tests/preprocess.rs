//! A folder preprocessed: files, indexes, going on after a kill.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notation::corpus::IndexedCorpus;
use notation::pack::PackedCorpus;
use notation::preprocess::{Keys, PreprocessOptions, PreprocessSummary, run};
use notation::{Error, Key, index};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Scores of its own in a folder, and options that write beside them.
fn options(folder: &Path) -> PreprocessOptions {
    let scores = folder.join("scores");
    fs::create_dir_all(&scores).unwrap();
    for entry in fs::read_dir(data()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, scores.join(path.file_name().unwrap())).unwrap();
    }
    PreprocessOptions {
        eval_split: 0.3,
        ..PreprocessOptions::new(scores, folder.join("interleaved"), folder.join("augmented"))
    }
}

fn interleaved(options: &PreprocessOptions) -> &Path {
    options.interleaved.as_deref().unwrap()
}

fn quietly(options: &PreprocessOptions) -> PreprocessSummary {
    run(options, &|_| ()).unwrap()
}

/// Every file below a folder with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn layout_indexes_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let report = quietly(&options);
    assert_eq!((report.converted, report.refused, report.unchanged), (7, 6, 0));
    assert_eq!((report.eval, report.train), (2, 5)); // 0.3 of 7, rounded down

    let all = index::read(&options.index("")).unwrap();
    let split =
        [index::read(&options.index("_eval")).unwrap(), index::read(&options.index("_train")).unwrap()].concat();
    assert_eq!(all, split);
    for entry in &all {
        assert!(entry.file(entry.key().unwrap()).is_file(), "{entry:?}");
        assert!(interleaved(&options).join(format!("{}.abc", entry.name())).is_file());
    }
    let line = fs::read_to_string(options.index(""))
        .unwrap()
        .lines()
        .find(|line| line.contains("repeats"))
        .unwrap()
        .to_owned();
    assert_eq!(line, format!("{{\"path\": \"{}/repeats\", \"key\": \"Gmin\"}}", options.augmented.display()));

    let refused: Vec<&str> = report.pieces.iter().filter_map(|piece| piece.refused.as_deref()).collect();
    let expected =
        format!("{}:9:1: voice V:2 has 3 bars, V:1 has 2", options.scores.join("refused_bars.abc").display());
    assert!(refused.contains(&expected.as_str()), "{refused:?}");
    assert_eq!(fs::read_to_string(options.index("_report")).unwrap().lines().count(), 13);
}

#[test]
fn threads_do_not_matter_and_the_seed_does() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    quietly(&PreprocessOptions { threads: Some(1), ..options.clone() });
    let one = files(folder.path());
    for made in [interleaved(&options), &options.augmented] {
        fs::remove_dir_all(made).unwrap();
    }
    fs::remove_file(options.index("_report")).unwrap();
    quietly(&PreprocessOptions { threads: Some(5), ..options.clone() });
    assert!(one == files(folder.path()));
    quietly(&PreprocessOptions { seed: 1, ..options.clone() });
    assert_ne!(one[&options.index("")], fs::read(options.index("")).unwrap());
}

#[test]
fn goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    quietly(&options);
    let expected = files(folder.path());
    for made in [interleaved(&options), &options.augmented] {
        fs::remove_dir_all(made).unwrap();
    }
    for suffix in ["", "_train", "_eval", "_report"] {
        fs::remove_file(options.index(suffix)).unwrap();
    }

    let stop = Arc::new(AtomicBool::new(false));
    let stopping = PreprocessOptions { stop: Some(stop.clone()), threads: Some(1), ..options.clone() };
    let stopped = run(&stopping, &|progress| {
        if let notation::preprocess::Progress::Piece { done: 4, .. } = progress {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert!(!options.index("").exists());
    // As a kill may leave it: a line cut short, a file half written under its temporary name.
    let report = fs::read_to_string(options.index("_report")).unwrap();
    assert_eq!(report.lines().count(), 4);
    fs::write(options.index("_report"), &report[..report.len() - 20]).unwrap();
    fs::write(interleaved(&options).join(".text.abc.part"), "half").unwrap();

    let report = quietly(&options);
    assert_eq!(report.unchanged, 3);
    assert!(files(folder.path()) == expected);
}

#[test]
fn only_what_changed_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    quietly(&options);
    assert_eq!(quietly(&options).unchanged, 13);

    // Changed, gone, lost, refused now.
    fs::copy(options.scores.join("repeats.abc"), options.scores.join("scale.abc")).unwrap();
    fs::remove_file(options.scores.join("order.abc")).unwrap();
    fs::remove_file(interleaved(&options).join("text.abc")).unwrap();
    fs::write(options.scores.join("keys.abc"), b"V:1\n\xff").unwrap();
    let report = quietly(&options);
    assert_eq!((report.converted, report.refused, report.unchanged), (5, 7, 9));
    let names = |folder: &Path| -> Vec<String> {
        files(folder).keys().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(interleaved(&options)), ["newlines.abc", "repeats.abc", "rhythm.abc", "scale.abc", "text.abc"]);
    assert_eq!(
        names(&options.augmented),
        ["repeats_Bb.abc", "scale_Bb.abc", "newlines_C.abc", "text_Eb.abc", "rhythm_G.abc"]
    );
    let keys = &report.pieces.iter().find(|piece| piece.name == "keys").unwrap().refused;
    assert!(keys.as_ref().unwrap().ends_with("keys.abc: line 2: not UTF-8 (byte 4 of the file)"));
}

#[test]
fn musicxml_is_read_as_the_abc_that_it_becomes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/musicxml");
    let folder = tempfile::tempdir().unwrap();
    let [xml, abc] = ["xml", "abc"].map(|end| {
        let options =
            PreprocessOptions::new(folder.path().join(end), folder.path().join("i").join(end), folder.path().join("a"));
        let options = PreprocessOptions { augmented: options.augmented.join(end), keys: Keys::All, ..options };
        fs::create_dir_all(&options.scores).unwrap();
        fs::create_dir_all(options.augmented.parent().unwrap()).unwrap();
        for name in ["two_staves", "tuplets", "overlaps", "groups"] {
            let file = format!("{name}.{end}");
            fs::copy(golden.join(&file), options.scores.join(&file)).unwrap();
        }
        fs::write(options.scores.join(format!("broken.{end}")), "<score-partwise>\n<part>").unwrap();
        (quietly(&options), options)
    });
    let below = |folder: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        files(folder).into_iter().map(|(path, text)| (path.strip_prefix(folder).unwrap().to_owned(), text)).collect()
    };
    assert_eq!(below(interleaved(&xml.1)).len(), 4);
    assert_eq!(below(interleaved(&xml.1)), below(interleaved(&abc.1)));
    assert_eq!(below(&xml.1.augmented), below(&abc.1.augmented));
    let piece = |name: &str| xml.0.pieces.iter().find(|piece| piece.name == name).unwrap().clone();
    let refused = piece("broken").refused.unwrap();
    assert!(
        refused.ends_with("broken.xml: line 2, column 1: <part> is not closed: the file ends too early"),
        "{refused}"
    );
    assert!(piece("overlaps").warnings[0].contains("notes overlap"), "{:?}", piece("overlaps").warnings);
    assert!(piece("tuplets").warnings.is_empty());
    assert_eq!(quietly(&xml.1).unchanged, 5);
}

#[test]
fn all_keys_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let options = PreprocessOptions { keys: Keys::All, ..options(folder.path()) };
    quietly(&options);
    for key in Key::ALL {
        assert_eq!(files(&options.augmented.join(key.name())).len(), 7);
    }
}

#[test]
fn folders_and_options_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut options =
        PreprocessOptions::new(folder.path().join("none"), folder.path().join("i"), folder.path().join("a"));
    assert!(run(&options, &|_| ()).unwrap_err().to_string().contains("none: No such file"));
    options.scores = folder.path().to_owned();
    let error = run(&options, &|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("no scores here") && error.hint().unwrap().contains("MusicXML"));
    fs::write(folder.path().join("a.mxl"), "").unwrap();
    fs::write(folder.path().join("a.abc"), "").unwrap();
    let error = run(&options, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("a.abc and ") && error.ends_with("a.mxl: two scores of one name"), "{error}");
    options.eval_split = f64::NAN;
    assert!(matches!(run(&options, &|_| ()), Err(Error::EvalSplit { .. })));
}

/// PreprocessOptions for the same scores that write no augmented pieces, but a pack where one is named.
fn read_as_loaded(options: &PreprocessOptions, name: &str, packed: bool) -> PreprocessOptions {
    let folder = options.scores.parent().unwrap().join(name);
    PreprocessOptions {
        interleaved: (!packed).then(|| folder.join("pieces")),
        pack: packed.then(|| folder.join("pieces.pack")),
        augmented: folder.join("augmented"),
        keys: Keys::None,
        ..options.clone()
    }
}

#[test]
fn pieces_moved_as_they_are_read_have_the_bytes_of_the_augmented_ones() {
    let folder = tempfile::tempdir().unwrap();
    let all = PreprocessOptions {
        keys: Keys::All,
        prompts: Some(folder.path().join("prompts.csv")),
        ..options(folder.path())
    };
    fs::write(
        all.prompts.as_ref().unwrap(),
        "piece,period,composer,instrumentation\nrepeats,Romantic,\"Dvořák, Antonín\",Chamber\n",
    )
    .unwrap();
    quietly(&all);
    let written = IndexedCorpus::open(&index::read(&all.index("")).unwrap()).unwrap();
    for packed in [false, true] {
        let loaded = read_as_loaded(&all, if packed { "packed" } else { "loaded" }, packed);
        let report = quietly(&loaded);
        assert_eq!((report.converted, report.refused, report.duplicates), (7, 6, 0));
        assert!(!loaded.augmented.exists());
        let entries = index::read(&loaded.index("")).unwrap();
        let corpus = IndexedCorpus::open(&entries).unwrap();
        for entry in &entries {
            let other = index::IndexEntry {
                path: format!("{}/{}", all.augmented.display(), entry.name()),
                key: entry.key.clone(),
            };
            for key in Key::ALL {
                assert_eq!(
                    corpus.read(entry, key).unwrap(),
                    written.read(&other, key).unwrap(),
                    "{entry:?} {}",
                    key.name()
                );
            }
        }
        let repeats = entries.iter().find(|entry| entry.name() == "repeats").unwrap();
        let text = corpus.read(repeats, repeats.key().unwrap()).unwrap();
        assert!(text.starts_with("%Romantic\n%Dvorak, Antonin\n%Chamber\n%%score"), "{text}");
        assert_eq!(quietly(&loaded).unchanged, 13);
    }
    // Another prompt, and none: only this piece is done again.
    fs::write(
        all.prompts.as_ref().unwrap(),
        "piece,period,composer,instrumentation\nrepeats.abc,Baroque,Bach,Keyboard\n",
    )
    .unwrap();
    assert_eq!(quietly(&all).unchanged, 12);
    assert!(
        fs::read_to_string(interleaved(&all).join("repeats.abc"))
            .unwrap()
            .starts_with("%Baroque\n%Bach\n%Keyboard\n%%")
    );
    assert_eq!(quietly(&PreprocessOptions { prompts: None, ..all.clone() }).unchanged, 12);
    fs::write(all.prompts.as_ref().unwrap(), "piece,period,composer,instrumentation\nrepeat,Baroque,Bach,Keyboard\n")
        .unwrap();
    let error = run(&all, &|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("line 2, column 1: piece: there is no score called \"repeat\""), "{error}");
}

#[test]
fn a_pack_leaves_duplicates_out_and_goes_on_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let options = read_as_loaded(&options(folder.path()), "packed", true);
    fs::copy(options.scores.join("repeats.abc"), options.scores.join("again.abc")).unwrap();
    let report = quietly(&options);
    assert_eq!((report.converted, report.refused, report.duplicates), (7, 6, 1));
    let duplicate = report.pieces.iter().find(|piece| piece.duplicate_of.is_some()).unwrap();
    assert_eq!((duplicate.name.as_str(), duplicate.duplicate_of.as_deref()), ("repeats", Some("again")));
    assert!(!fs::read_to_string(options.index("")).unwrap().contains("repeats"));
    let path = options.pack.as_ref().unwrap();
    let pack = PackedCorpus::open(path).unwrap();
    assert_eq!(pack.len(), 8);
    assert_eq!(pack.text(pack.find("again").unwrap()).unwrap(), pack.text(pack.find("repeats").unwrap()).unwrap());
    let expected = files(folder.path());
    assert_eq!(quietly(&options).unchanged, 14);
    assert!(files(folder.path()) == expected);

    fs::remove_file(path).unwrap();
    fs::remove_file(options.index("_report")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = PreprocessOptions { stop: Some(stop.clone()), threads: Some(1), ..options.clone() };
    let stopped = run(&stopping, &|progress| {
        if let notation::preprocess::Progress::Piece { done: 8, .. } = progress {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(stopped, Err(Error::Stopped)) && !path.exists());
    assert_eq!(quietly(&options).unchanged, 8);
    assert!(files(folder.path()) == expected);

    // A piece that is gone leaves the pack, and its text is the other's alone.
    fs::remove_file(options.scores.join("again.abc")).unwrap();
    let report = quietly(&options);
    assert_eq!((report.converted, report.unchanged, report.duplicates), (7, 13, 0));
    let pack = PackedCorpus::open(path).unwrap();
    assert!(pack.find("again").is_none() && pack.find("repeats").is_some());
    let gone = index::IndexEntry { path: format!("{}/again", path.display()), key: "Gmin".into() };
    assert!(
        IndexedCorpus::open(&[gone]).unwrap_err().to_string().ends_with("pieces.pack: no piece called again in it")
    );
}

#[test]
fn keys_asked_for_later_are_made_or_checked() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    quietly(&options);
    // Only one key was possible for sure.
    assert_eq!(quietly(&PreprocessOptions { keys: Keys::None, ..options.clone() }).unchanged, 0);
    assert_eq!(quietly(&PreprocessOptions { keys: Keys::All, ..options.clone() }).unchanged, 6);
    assert_eq!(quietly(&PreprocessOptions { keys: Keys::None, ..options.clone() }).unchanged, 13);
    let nowhere = PreprocessOptions { interleaved: None, ..options };
    assert!(matches!(run(&nowhere, &|_| ()), Err(Error::NoOutput)));
}
