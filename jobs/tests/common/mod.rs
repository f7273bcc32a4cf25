//! A folder of its own for each test, and the real binary in it.
#![allow(dead_code)]
pub mod hub;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A recipe that trains a very small network on a few small pieces.
pub const TINY: &str = include_str!("../tiny.yaml");

pub struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    /// With the tiny recipe and its scores.
    pub fn new() -> Workplace {
        let place = Workplace::empty();
        place.write("tiny.yaml", TINY);
        for number in 0..12 {
            place.write(
                &format!("scores/{}_{number:02}.abc", if number < 8 { "bach" } else { "haydn" }),
                &score(number),
            );
        }
        place
    }

    pub fn empty() -> Workplace {
        Workplace { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, file: &str) -> String {
        let path = self.path(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.read(file)).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notagen-train"));
        // One thread each: tests run side by side, and idle threads that spin slow all of them down.
        command.args(arguments).current_dir(self.folder.path()).env("OMP_NUM_THREADS", "1");
        // What is measured of this machine is so once for all tests.
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().unwrap())
    }

    pub fn good(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code(), 0, "{arguments:?}\n{}", ran.stderr());
        ran
    }

    /// Asserts that the stages of a run have the fingerprints that the program of commit 45f6345 gave them: a run folder
    /// of that program is not stale. What the file leaves out depends on the machine.
    pub fn fingerprints_are_as_they_were(&self, run: &str) {
        let known: Value = serde_json::from_str(include_str!("../fingerprints.json")).unwrap();
        let state = self.json(&format!("runs/{run}/state.json"));
        let known = known[run].as_object().unwrap();
        assert_eq!(known.len(), state["stages"].as_object().unwrap().len());
        for (stage, parts) in known {
            for (part, value) in parts.as_object().unwrap() {
                assert_eq!(&state["stages"][stage]["fingerprint"][part], value, "{part} of {stage}");
            }
        }
    }

    /// The judge that was published.
    pub fn m3(&self) -> String {
        self.of_checkpoints("weights_m3_").display().to_string()
    }

    /// The files published, by a part of their name.
    pub fn published(&self, tag: &str) -> PathBuf {
        self.of_checkpoints(&format!("weights_notagen_{tag}_p_size"))
    }

    fn of_checkpoints(&self, start: &str) -> PathBuf {
        let found = fs::read_dir(self.path("checkpoints")).unwrap().flatten().map(|entry| entry.path());
        let mut found = found.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(start));
        found.next().unwrap_or_else(|| panic!("nothing is published as {start}"))
    }
}

/// What a command left.
pub struct Ran(pub Output);

impl Ran {
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The objects on standard output, one a line.
    pub fn objects(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.0.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Of the lines of `--json`, those of an event.
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.objects().into_iter().filter(|object| object["event"] == event).collect()
    }

    /// Asserts the exit code, the one line of the error and the line of its hint.
    pub fn fails(&self, code: i32, error: &str, hint: &str) {
        let text = self.stderr();
        assert_eq!(self.code(), code, "{text}");
        let of = |start: &str| text.lines().filter_map(|line| line.strip_prefix(start)).collect::<Vec<_>>();
        let (errors, hints) = (of("error: "), of("hint: "));
        assert_eq!(errors.len(), 1, "{text}");
        assert!(errors[0].contains(error), "`{error}` is not in\n{text}");
        assert!(hint.is_empty() || hints.iter().any(|line| line.contains(hint)), "`{hint}` is not in\n{text}");
        assert!(hints.len() <= 1, "{text}");
    }
}

/// A piece of two voices in standard ABC, as xml2abc writes it.
fn score(number: usize) -> String {
    let note = |at: usize, beat: usize| {
        format!(
            "{}2",
            ["C", "D", "E", "F", "G", "A", "B", "c", "d", "e"][(number * 3 + at * 5 + beat * (beat + number)) % 10]
        )
    };
    let bar = |at: usize| format!(" {} |", (0..4).map(|beat| note(at, beat)).collect::<Vec<_>>().join(" "));
    let music = |shift: usize| format!("{}]", (0..6 + number % 5).map(|at| bar(at + shift)).collect::<String>());
    let key = ["C", "G", "F", "D"][number % 4];
    format!(
        "X:1\nT:Piece {number}\n%%score {{ 1 | 2 }}\nL:1/8\nQ:1/4=100\nM:4/4\nK:{key}\nV:1 treble nm=\"Violin\"\nV:2 bass nm=\"Cello\"\n\
         V:1\n{} %{}\nV:2\n{} %{}\n",
        music(0),
        6 + number % 5,
        music(2),
        6 + number % 5
    )
}

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
