//! Scores to MusicXML or MIDI on one core, and how long that takes: what scripts compare with. MusicXML is
//! made ABC first, which does not count.
//!
//!     export musicxml|midi OUTPUT FILE…

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use notation::export::{to_midi, to_musicxml};
use notation::musicxml::{MusicXmlOptions, is_musicxml, to_abc};

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(format), Some(output)) = (words.next(), words.next()) else {
        eprintln!("usage: export musicxml|midi OUTPUT FILE…");
        std::process::exit(2);
    };
    let (mut spent, mut files, mut failed, mut warnings) = (Duration::ZERO, 0, 0, 0);
    for path in words {
        let text = fs::read(&path).ok().and_then(|bytes| {
            if is_musicxml(&path) {
                return to_abc(&bytes, &path, &MusicXmlOptions::default()).ok().map(|converted| converted.abc);
            }
            String::from_utf8(bytes).ok()
        });
        let Some(text) = text else {
            failed += 1;
            eprintln!("{path}: not read");
            continue;
        };
        let started = Instant::now();
        let result = match format.as_str() {
            "midi" => to_midi(&text, &path).map(|exported| (exported.output, exported.warnings)),
            _ => to_musicxml(&text, &path).map(|exported| (exported.output.into_bytes(), exported.warnings)),
        };
        spent += started.elapsed();
        files += 1;
        match result {
            Ok((bytes, found)) => {
                warnings += found.len();
                found.iter().for_each(|warning| eprintln!("{warning}"));
                let stem = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
                let stem = stem.rsplit_once('.').map_or(&*stem, |(stem, _)| stem);
                let extension = if format == "midi" { "mid" } else { "xml" };
                let target = Path::new(&output).join(format!("{stem}.{extension}"));
                if let Err(error) = fs::create_dir_all(&output).and_then(|()| fs::write(&target, bytes)) {
                    eprintln!("{}: {error}", target.display());
                    std::process::exit(1);
                }
            }
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
            }
        }
    }
    let seconds = spent.as_secs_f64();
    println!(
        "{files} files, {failed} failed, {warnings} warnings, {seconds:.3} s: {:.0} files/s",
        f64::from(files) / seconds
    );
}
