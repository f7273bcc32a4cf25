//! Damages scores at random for a while and converts them: `fuzz_musicxml SECONDS [SEED] [FOLDER]`.
//!
//! Ends with the score that panicked, or that took longer than a second and a microsecond a byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use notation::musicxml::{MusicXmlOptions, is_musicxml, to_abc};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().expect("how many seconds").parse().expect("seconds are a number");
    let seed = arguments.next().map_or(0, |seed| seed.parse().expect("the seed is a number"));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/musicxml");
    let folder = arguments.next().unwrap_or(golden.to_owned());
    let names = std::fs::read_dir(&folder).expect(&folder).map(|entry| entry.unwrap().path());
    let texts: Vec<String> = names
        .filter(|path| is_musicxml(&path.to_string_lossy()))
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter(|text| text.len() < 300_000)
        .collect();
    assert!(!texts.is_empty(), "{folder}: no MusicXML that is plain text");

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let started = Instant::now();
    let (mut scores, mut converted, mut longest) = (0_u64, 0_u64, Duration::ZERO);
    while started.elapsed().as_secs() < seconds {
        let text = support::damage(&texts[rng.random_range(0..texts.len())], &mut rng);
        let began = Instant::now();
        let result =
            catch_unwind(AssertUnwindSafe(|| to_abc(text.as_bytes(), "", &MusicXmlOptions::default()).is_ok()));
        let took = began.elapsed();
        let slow = took > Duration::from_secs(1) + Duration::from_micros(text.len() as u64);
        if slow || result.is_err() {
            let file = std::env::temp_dir().join(format!("fuzz_musicxml_{seed}_{scores}.xml"));
            std::fs::write(&file, &text).unwrap();
            panic!("{}: {}", file.display(), if slow { format!("took {took:?}") } else { "panicked".to_owned() });
        }
        longest = longest.max(took);
        scores += 1;
        converted += u64::from(result.unwrap_or(false));
    }
    println!("{scores} scores in {seconds} s: {converted} converted, no panic, the slowest took {longest:?}");
}
