//! Decodes a file to the text of its XML: unpacks `.mxl`, and recognises character encodings.

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::str::Utf8Error;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use zip::ZipArchive;

use super::fault::Fault;
use super::xml::Tree;

/// The longest XML in bytes; no score is that long.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// The text of a score, from `.mxl` or plain XML.
pub(super) fn text(bytes: &[u8], most: u64) -> Result<Cow<'_, str>, Fault> {
    let text = match bytes {
        _ if bytes.starts_with(b"PK") => decode(Cow::Owned(unpack(bytes, most)?))?,
        _ if bytes.len() as u64 > most => return Err(too_long(most)),
        _ => decode(Cow::Borrowed(bytes))?,
    };
    Ok(if memchr::memchr(b'\r', text.as_bytes()).is_some() { Cow::Owned(new_lines(&text)) } else { text })
}

/// Converts `\r\n` and `\r` to `\n`, as XML requires.
fn new_lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for at in memchr::memchr_iter(b'\r', text.as_bytes()) {
        clean.push_str(text.get(from..at).unwrap_or_default());
        if text.as_bytes().get(at + 1) != Some(&b'\n') {
            clean.push('\n');
        }
        from = at + 1;
    }
    clean.push_str(text.get(from..).unwrap_or_default());
    clean
}

fn too_long(most: u64) -> Fault {
    Fault::whole(format!("longer than {} MiB", most >> 20))
}

fn unpack(bytes: &[u8], most: u64) -> Result<Vec<u8>, Fault> {
    let broken = |error: zip::result::ZipError| Fault::whole(format!("not a readable archive: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let listed = archive.by_name("META-INF/container.xml").ok().and_then(|entry| {
        let mut container = Vec::new();
        entry.take(1 << 20).read_to_end(&mut container).ok()?;
        root_file(&decode(Cow::Owned(container)).ok()?)
    });
    let is_score = |name: &&str| {
        let lower = name.to_ascii_lowercase();
        // macOS adds files of its own: `__MACOSX/._score.xml`.
        let other = ["META", "__MACOSX/", "._"].iter().any(|start| name.starts_with(start)) || name.contains("/._");
        !other && [".xml", ".musicxml"].iter().any(|end| lower.ends_with(end))
    };
    let name = match listed.filter(|name| archive.index_for_name(name).is_some()) {
        Some(name) => name,
        None => match archive.file_names().find(is_score) {
            Some(name) => name.to_owned(),
            None => return Err(Fault::whole("an archive without a MusicXML file in it".to_owned())),
        },
    };
    let entry = archive.by_name(&name).map_err(broken)?;
    // The size in the archive may be wrong, and much too large.
    let mut unpacked = Vec::with_capacity(usize::try_from(entry.size().min(64 << 20)).unwrap_or_default());
    entry
        .take(most + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| Fault::whole(format!("{name} cannot be unpacked: {error}")))?;
    if unpacked.len() as u64 > most { Err(too_long(most)) } else { Ok(unpacked) }
}

/// The first file in an archive's table of contents.
fn root_file(container: &str) -> Option<String> {
    let tree = Tree::parse(container).ok()?;
    tree.root().find("rootfiles/rootfile")?.attribute("full-path").map(Cow::into_owned)
}

/// Decodes bytes by their byte order mark, by the zeros of UTF-16, or by the XML declaration.
fn decode(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Fault> {
    let (encoding, mark) = match Encoding::for_bom(&bytes) {
        Some((encoding, mark)) => (encoding, mark),
        None if bytes.starts_with(b"<\0") => (UTF_16LE, 0),
        None if bytes.starts_with(b"\0<") => (UTF_16BE, 0),
        None => (declared(&bytes)?, 0),
    };
    if encoding != UTF_8 {
        let (text, damaged) = encoding.decode_without_bom_handling(&bytes[mark..]);
        let unreadable = || Fault::whole(format!("not {}", encoding.name()));
        return if damaged { Err(unreadable()) } else { Ok(Cow::Owned(text.into_owned())) };
    }
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(&bytes[mark..]) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(error) => Err(not_utf8(&bytes[mark..], error)),
        },
        Cow::Owned(mut bytes) => {
            bytes.drain(..mark);
            String::from_utf8(bytes).map(Cow::Owned).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error()))
        }
    }
}

fn not_utf8(bytes: &[u8], error: Utf8Error) -> Fault {
    let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    Fault::whole(format!("line {line}, column {column}: not UTF-8"))
}

/// The encoding that the XML declaration names.
fn declared(bytes: &[u8]) -> Result<&'static Encoding, Fault> {
    let Some(label) = label(bytes) else { return Ok(UTF_8) };
    match label.to_ascii_lowercase().as_str() {
        // The declaration could be read as ASCII, so the text is not UTF-16: it was re-encoded as UTF-8.
        "utf-16" | "utf-16le" | "utf-16be" | "us-ascii" | "ascii" => Ok(UTF_8),
        label => Encoding::for_label(label.as_bytes())
            .ok_or_else(|| Fault { at: None, problem: format!("unknown encoding {label:?}") }),
    }
}

fn label(bytes: &[u8]) -> Option<&str> {
    let head = &bytes[..bytes.len().min(256)];
    let end = head.windows(2).position(|pair| pair == b"?>")?;
    let head = std::str::from_utf8(&head[..end]).ok()?.trim_start().strip_prefix("<?xml")?;
    let (_, value) = head.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
        super::text(bytes, MOST_BYTES)
    }

    #[test]
    fn encodings_are_recognised() {
        let utf16: Vec<u8> = "\u{feff}<a>é</a>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(text(&utf16).unwrap(), "<a>é</a>");
        let unmarked: Vec<u8> = "<a>é</a>".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(text(&unmarked).unwrap(), "<a>é</a>");
        assert!(text(b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>").unwrap().ends_with("<a>é</a>"));
        assert!(text(b"<?xml version=\"1.0\" encoding=\"windows-1252\"?><a>\x80</a>").unwrap().ends_with("<a>€</a>"));
        assert_eq!(text(b"<a\r\n>\r\r\n</a>\r").unwrap(), "<a\n>\n\n</a>\n");
        assert_eq!(text("\u{feff}<a>é</a>".as_bytes()).unwrap(), "<a>é</a>");
        assert!(text(b"<?xml version='1.0' encoding='UTF-16'?><a/>").unwrap().ends_with("<a/>"));
    }

    #[test]
    fn bad_bytes_and_encodings_are_named() {
        assert_eq!(text(b"<a>\n<b>\xff").unwrap_err().problem, "line 2, column 4: not UTF-8");
        let unknown = text(b"<?xml version='1.0' encoding='ebcdic-x'?>").unwrap_err();
        assert_eq!(unknown.problem, "unknown encoding \"ebcdic-x\"");
        assert!(text(b"PK\x03\x04").unwrap_err().problem.starts_with("not a readable archive"));
    }

    #[test]
    fn what_a_mac_puts_into_an_archive_is_no_score() {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, contents) in [("__MACOSX/._score.xml", "\0\x05"), ("._score.xml", "\0\x05"), ("score.xml", "<a/>")] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            std::io::Write::write_all(&mut archive, contents.as_bytes()).unwrap();
        }
        assert_eq!(text(&archive.finish().unwrap().into_inner()).unwrap(), "<a/>");
    }
}
