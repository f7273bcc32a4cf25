//! Real pieces, damaged at random, through everything that reads or writes music: no panic, no hang, and
//! no time that grows faster than the text.
//!
//!     fuzz SECONDS SEED FAILURES PIECE…

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use notation::export::{to_midi, to_musicxml};
use notation::preprocess::{Keys, convert};
use notation::{Key, alignment, augment, grouping, interleave, musicxml, rests, text, transpose};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A case that runs longer hangs.
const HANG: Duration = Duration::from_secs(240);

const PIECES: [&str; 40] = [
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "\"",
    "!",
    "|",
    ":",
    "::",
    "[V:",
    "[V:1]",
    "[V:99]",
    "[K:D]",
    "[M:3/4]",
    "[L:1/64]",
    "(3",
    "(5:4:5",
    "Z99",
    "z/",
    "A-",
    "[CEG]2",
    "&",
    "<",
    ">",
    "^",
    "_",
    "=",
    "'",
    ",",
    "999999999999",
    "\\",
    "%",
    " ",
    "\n",
    "\r",
    "é",
    "𝄞",
    "\0",
];

fn damage(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..rng.random_range(1..30) {
        let place = rng.random_range(0..=text.len());
        let other = rng.random_range(place..=text.len().min(place + 40));
        match rng.random_range(0..8) {
            0 => drop(text.drain(place..other)),
            1 => text.extend_from_within(place..other),
            2 => {
                let part = text[place..other].to_vec();
                let at = rng.random_range(0..=text.len());
                text.splice(at..at, part);
            }
            3 => text.truncate(place.max(40)),
            4 => {
                let sign = PIECES[rng.random_range(0..PIECES.len())].repeat(rng.random_range(1..60));
                text.splice(place..place, sign.chars());
            }
            _ => drop(text.splice(place..place, PIECES[rng.random_range(0..PIECES.len())].chars())),
        }
    }
    text.into_iter().collect()
}

/// Everything, on one text.
fn everything(abc: &str, rng: &mut ChaCha8Rng) {
    let key = Key::ALL[rng.random_range(0..15)];
    let lines = text::lines(abc);
    if let Ok(piece) = convert(abc.as_bytes(), Keys::Original) {
        let _ = augment::reduced(&piece.interleaved, key);
    }
    let _ = augment::reduced(abc, key);
    let _ = alignment::check(&lines);
    let _ = alignment::check_interleaved(&lines);
    let _ = grouping::is_grouped(&lines);
    let _ = interleave::interleave(&lines);
    let _ = interleave::uninterleave(&lines);
    let _ = transpose::transpose(&lines, key);
    let _ = rests::reduce(&lines);
    let _ = rests::unreduce_text(abc);
    let _ = to_midi(abc, "fuzz");
    if let Ok(exported) = to_musicxml(abc, "fuzz") {
        let _ = musicxml::to_abc(exported.output.as_bytes(), "fuzz", &musicxml::MusicXmlOptions::default());
        if rng.random_range(0..4) == 0 {
            let damaged = damage(&exported.output, rng);
            let _ = musicxml::to_abc(damaged.as_bytes(), "fuzz", &musicxml::MusicXmlOptions::default());
        }
    }
}

/// The beginning of the character that has this byte.
fn boundary(text: &str, byte: usize) -> usize {
    (0..=byte).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A piece with a part of its music repeated.
fn grown(piece: &str, part: &str, length: usize) -> String {
    let mut text = piece.to_owned();
    text.push('\n');
    while text.len() < piece.len() + length {
        text.push_str(part);
    }
    text.push_str("|\n");
    text
}

/// What this thread has had of a core: other work on the machine does not count.
fn seconds_worked() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn main() {
    let mut words = std::env::args().skip(1);
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(seconds), Some(seed)) = (number(), number()) else {
        eprintln!("usage: fuzz SECONDS SEED FAILURES PIECE…");
        std::process::exit(2);
    };
    let failures = PathBuf::from(words.next().unwrap_or_default());
    // Short ones: more cases in the time, and no less in them.
    let pieces: Vec<String> = words.filter_map(|path| read(&path)).filter(|piece| piece.len() < 12_000).collect();
    if pieces.is_empty() {
        eprintln!("fuzz: no pieces");
        std::process::exit(2);
    }

    // What runs now, and since when: for the thread that looks for hangs.
    let now: Arc<Mutex<(Instant, String)>> = Arc::new(Mutex::new((Instant::now(), String::new())));
    let watched = (Arc::clone(&now), failures.clone());
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let Ok(now) = watched.0.lock() else { return };
            if now.0.elapsed() > HANG {
                save(&watched.1, "hang", &now.1);
                std::process::exit(1);
            }
        }
    });

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let started = Instant::now();
    let (mut cases, mut panics, mut slow, mut bytes) = (0_u64, 0, 0, 0_u64);
    while started.elapsed().as_secs() < seconds {
        let piece = &pieces[rng.random_range(0..pieces.len())];
        let case = damage(piece, &mut rng);
        let seed: u64 = rng.random();
        if let Ok(mut now) = now.lock() {
            *now = (Instant::now(), case.clone());
        }
        cases += 1;
        bytes += case.len() as u64;
        let run = || everything(&case, &mut ChaCha8Rng::seed_from_u64(seed));
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            panics += 1;
            save(&failures, "panic", &case);
        }
        if cases % 100 == 0 {
            // The time of eight times the text.
            let start = boundary(piece, rng.random_range(0..piece.len()));
            let end = boundary(piece, piece.len().min(start + rng.random_range(1..60)));
            let part = damage(&piece[start..end], &mut rng);
            let part: String = part.chars().chain(['A']).take(200).collect();
            let time = |length: usize| {
                let text = grown(piece, &part, length);
                if let Ok(mut now) = now.lock() {
                    *now = (Instant::now(), text.clone());
                }
                let before = seconds_worked();
                everything(&text, &mut ChaCha8Rng::seed_from_u64(seed));
                seconds_worked() - before
            };
            let check = || (time(10_000), time(80_000));
            match catch_unwind(AssertUnwindSafe(check)) {
                Ok((short, long)) if long > 2.0 && long > 40.0 * short => {
                    slow += 1;
                    save(&failures, "slow", &grown(piece, &part, 80_000));
                    eprintln!("fuzz: {short:.3} s, eight times the text {long:.3} s");
                }
                Ok(_) => {}
                Err(_) => {
                    panics += 1;
                    save(&failures, "panic", &grown(piece, &part, 80_000));
                }
            }
        }
    }
    println!(
        "{cases} cases, {:.1} MB, {} s, seed {seed}: {panics} panics, {slow} slow",
        bytes as f64 / 1e6,
        started.elapsed().as_secs()
    );
    if panics + slow > 0 {
        std::process::exit(1);
    }
}

/// The ABC of a file.
fn read(path: &str) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    if musicxml::is_musicxml(path) {
        return musicxml::to_abc(&bytes, path, &musicxml::MusicXmlOptions::default())
            .ok()
            .map(|converted| converted.abc);
    }
    String::from_utf8(bytes).ok()
}

fn save(folder: &Path, kind: &str, case: &str) {
    let number = (0..).find(|number| !folder.join(format!("{kind}-{number}.abc")).exists()).unwrap_or(0);
    let path = folder.join(format!("{kind}-{number}.abc"));
    if fs::create_dir_all(folder).and_then(|()| fs::write(&path, case)).is_ok() {
        eprintln!("fuzz: {kind}: {}", path.display());
    }
}
