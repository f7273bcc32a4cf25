//! Tells what a file is that does not begin as a zip archive does.

use super::error::Problem;

/// The first bytes of a legacy file: protocol 2, then PyTorch's magic number as a long.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

const SIGNATURES: [(&[u8], &str); 11] = [
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
    (b"X:", "a piece in ABC notation"),
];

/// What `head`, the first bytes of a file of `len` bytes, says that the file is.
pub(super) fn identify(head: &[u8], len: u64) -> Problem {
    if len == 0 {
        return Problem::Empty;
    }
    if head.starts_with(LEGACY) {
        return Problem::LegacyPickle;
    }
    if is_tar(head) {
        return Problem::LegacyTar;
    }
    if let [0x80, protocol @ 1..=5, ..] = head {
        let _ = protocol;
        return Problem::PlainPickle;
    }
    if head.starts_with(b"version https://git-lfs") {
        return Problem::LfsPointer;
    }
    if is_safetensors(head, len) {
        return Problem::Foreign { what: "a safetensors file" };
    }
    if let Some((_, what)) = SIGNATURES.iter().find(|(start, _)| head.starts_with(start)) {
        return Problem::Foreign { what };
    }
    Problem::Foreign { what: text(head).unwrap_or("no format known here") }
}

/// A safetensors file begins with its header's length and a JSON object.
pub(crate) fn is_safetensors(head: &[u8], len: u64) -> bool {
    match head {
        [a, b, c, d, e, f, g, h, b'{', ..] => {
            u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) <= len.saturating_sub(8)
        }
        _ => false,
    }
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
        || [&b"sys_info\0"[..], b"pickle\0", b"storages\0", b"tensors\0"].iter().any(|name| head.starts_with(name))
}

fn text(head: &[u8]) -> Option<&'static str> {
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(byte))?;
    let start = head[start..].to_ascii_lowercase();
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") || start.starts_with(b"<head") {
        Some("an HTML page")
    } else if start.starts_with(b"<") {
        Some("an XML page")
    } else if start.starts_with(b"{") || start.starts_with(b"[") {
        Some("a JSON text")
    } else if std::str::from_utf8(head).is_ok() {
        Some("a text")
    } else {
        None
    }
}
