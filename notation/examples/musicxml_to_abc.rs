//! MusicXML files to standard ABC, on one core: `musicxml_to_abc FOLDER FILE…` writes `FOLDER/<file>.abc` and
//! prints a line, the file and what is wrong with it, for each one that cannot be converted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use notation::musicxml::{MusicXmlOptions, to_abc};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a folder to write to");
    for path in arguments {
        match to_abc(&std::fs::read(&path).expect(&path), "", &MusicXmlOptions::default()) {
            Ok(converted) => {
                let name = Path::new(&path).file_name().unwrap().to_string_lossy();
                std::fs::write(Path::new(&folder).join(format!("{name}.abc")), converted.abc).unwrap();
            }
            Err(error) => println!("{path}\t{error}"),
        }
    }
}
