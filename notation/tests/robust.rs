//! Nothing that is read makes the crate panic: real pieces, damaged at random.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::panic::{AssertUnwindSafe, catch_unwind};

use notation::preprocess::{Keys, convert};
use notation::{Key, alignment, augment, interleave, rests, text, transpose};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PIECES: [&str; 4] = [
    include_str!("data/repeats.abc"),
    include_str!("data/keys.abc"),
    include_str!("data/rhythm.abc"),
    include_str!("data/text.abc"),
];
const SIGNS: &[char] = &[
    '[', ']', '{', '}', '(', ')', '"', '!', '|', ':', 'V', 'K', '1', '9', '/', '<', '>', '^', '_', '=', '\'', ',', 'z',
    'A', 'b', '\\', '%', ' ', '\n', '\r', '-', '.', 'é', 'ß', '½', '漢', '\u{2028}', '\u{a0}', '𝄞', '\0',
];

fn damage(text: &str, rng: &mut ChaCha8Rng) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..rng.random_range(1..40) {
        let place = rng.random_range(0..=text.len());
        let other = rng.random_range(place..=text.len().min(place + 30));
        match rng.random_range(0..6) {
            0 => drop(text.drain(place..other)),
            1 => text.extend_from_within(place..other),
            2 => {
                let part = text[place..other].to_vec();
                let at = rng.random_range(0..=text.len());
                text.splice(at..at, part);
            }
            _ => text.insert(place, SIGNS[rng.random_range(0..SIGNS.len())]),
        }
    }
    text.into_iter().collect()
}

#[test]
fn damaged_pieces_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (mut converted, mut refused, mut unlike) = (0, 0, 0);
    for i in 0..20_000 {
        let source = PIECES[i % PIECES.len()];
        // Standard ABC, and what the model writes.
        let reduced = convert(source.as_bytes(), Keys::Original).unwrap().reduced.remove(0).1;
        let (standard, reduced) = (damage(source, &mut rng), damage(&reduced, &mut rng));
        let result = catch_unwind(AssertUnwindSafe(|| {
            let piece = convert(standard.as_bytes(), Keys::All);
            let loaded = convert(standard.as_bytes(), Keys::None);
            if let (Ok(written), Ok(loaded)) = (&piece, &loaded) {
                for (key, text) in &written.reduced {
                    assert_eq!(augment::reduced(&loaded.interleaved, *key).as_ref().ok(), Some(text));
                }
            }
            let lines = text::lines(&standard);
            // Without the clean-up: characters beyond ASCII reach everything.
            let _ = alignment::check(&lines);
            let _ = interleave::interleave(&lines);
            let _ = transpose::transpose(&lines, Key::ALL[i % 15]);
            let _ = rests::reduce(&lines);
            let _ = rests::unreduce_text(&reduced);
            let _ = augment::reduced(&reduced, Key::ALL[i % 15]);
            let lines = text::lines(&reduced);
            let _ = alignment::check_interleaved(&lines);
            let _ = interleave::uninterleave(&lines);
            piece.is_ok().then_some(loaded.is_ok())
        }));
        match result {
            Ok(Some(same)) => {
                converted += 1;
                unlike += usize::from(!same);
            }
            Ok(None) => refused += 1,
            Err(_) => panic!("panicked on standard ABC\n{standard}\nor reduced ABC\n{reduced}"),
        }
    }
    assert!(unlike * 10 < converted, "{unlike} of {converted} cannot be moved as they are read");
    assert!(converted > 200 && refused > 200, "{converted} converted, {refused} refused: a poor test");
}

#[test]
fn long_pieces_take_no_more_than_their_share_of_time() {
    // A voice without bar lines, deep tuplets, many inline keys: what was quadratic in the original.
    let head = "%%score 1\nL:1/8\nK:C\nV:1 treble\nV:1\n";
    let started = std::time::Instant::now();
    for body in ["^cd=e,".repeat(50_000), "[K:D]c".repeat(50_000), "c|".repeat(100_000), "\"^x\"".repeat(5_000)] {
        convert(format!("{head}{body}|\n").as_bytes(), Keys::Original).unwrap();
    }
    let tuplets = "(3:2:3".repeat(3_000) + "c|";
    let _ = convert(format!("{head}{tuplets}\n").as_bytes(), Keys::Original);
    let _ = rests::unreduce_text(&"[V:1]c|".repeat(100_000));
    let _ = rests::unreduce_text(&format!("%%score 1\nV:1\n{}", "[V:1]c|\n".repeat(100_000)));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
