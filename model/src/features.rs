//! Features of pieces as files: `.npy`, float32, shape (1, width), as the original's `extract_clamp2.py` writes them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use notation::files::{Flush, write_atomically};

use crate::error::AtPath;
use crate::{Error, Result};

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy aligns the numbers so.
const ALIGNED_TO: usize = 64;

/// Writes a feature, under a temporary name first.
pub fn write(path: &Path, feature: &[f32]) -> Result<()> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {}), }}", feature.len());
    let before = MAGIC.len() + 4;
    let padded = (before + header.len() + 1).next_multiple_of(ALIGNED_TO) - before;
    header.push_str(&" ".repeat(padded - header.len() - 1));
    header.push('\n');
    let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(feature.iter().flat_map(|number| number.to_le_bytes()));
    write_atomically(path, Flush::Later, |file| file.write_all(&bytes)).at(path)
}

/// Reads a feature: at least one number, all of them finite.
pub fn read(path: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(path).at(path)?;
    let feature = parse(&bytes).map_err(|problem| Error::Feature { path: path.to_owned(), problem })?;
    if let Some(place) = feature.iter().position(|number| !number.is_finite()) {
        let problem = format!("number {place} of the feature is {}", feature[place]);
        return Err(Error::Feature { path: path.to_owned(), problem });
    }
    Ok(feature)
}

/// The features in a folder.
#[derive(Debug, Default)]
pub struct Folder {
    /// Names relative to the folder, with `/` and without `.npy`, in order, and their features, all of one width.
    pub features: Vec<(String, Vec<f32>)>,
    /// Files that are no features, or of another width than the first.
    pub damaged: Vec<Error>,
}

/// Reads every `.npy` file in a folder and its subfolders, in the order of their names.
///
/// # Errors
/// Only where a folder cannot be listed; files that cannot be used are in [`Folder::damaged`].
pub fn read_folder(folder: &Path) -> Result<Folder> {
    let mut paths = Vec::new();
    list(folder, "", &mut paths)?;
    paths.sort();
    let mut found = Folder::default();
    for (name, path) in paths {
        match (read(&path), found.features.first().map(|(_, first)| first.len())) {
            (Ok(feature), Some(width)) if feature.len() != width => {
                let problem = format!("{} numbers, where the other features have {width}", feature.len());
                found.damaged.push(Error::Feature { path, problem });
            }
            (Ok(feature), _) => found.features.push((name, feature)),
            (Err(error), _) => found.damaged.push(error),
        }
    }
    Ok(found)
}

fn list(folder: &Path, prefix: &str, paths: &mut Vec<(String, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let Some(name) = path.file_name().map(|name| format!("{prefix}{}", name.to_string_lossy())) else { continue };
        if path.is_dir() {
            list(&path, &format!("{name}/"), paths)?;
        } else if let Some(name) = name.strip_suffix(".npy") {
            paths.push((name.to_owned(), path));
        }
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> std::result::Result<Vec<f32>, String> {
    let cut_off = || "the file is cut off".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a file of NumPy's")?;
    let (version, rest) = rest.split_at_checked(2).ok_or_else(cut_off)?;
    let wide = if version[0] == 1 { 2 } else { 4 };
    let (length, rest) = rest.split_at_checked(wide).ok_or_else(cut_off)?;
    let length = length.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
    let (header, numbers) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    let header = String::from_utf8_lossy(header);
    let value = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ', '\'', '"']));
    let kind = value("'descr'").and_then(|rest| rest.split(['\'', '"']).next()).unwrap_or_default();
    if kind != "<f4" {
        return Err(format!("its numbers are {kind:?}, and not float32 (\"<f4\")"));
    }
    let shape = value("'shape'").and_then(|rest| rest.strip_prefix('(')?.split(')').next()).unwrap_or_default();
    let sizes: Vec<Option<usize>> =
        shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect();
    let [Some(1), Some(width @ 1..)] = sizes[..] else {
        return Err(format!("its shape is ({shape}), and not (1, width)"));
    };
    if Some(numbers.len()) != width.checked_mul(4) {
        return Err(format!(
            "{} bytes of numbers, where {width} numbers have {}",
            numbers.len(),
            width.saturating_mul(4)
        ));
    }
    Ok(numbers.chunks_exact(4).map(|n| f32::from_le_bytes([n[0], n[1], n[2], n[3]])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_named_and_the_rest_is_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("a")).unwrap();
        for name in ["b.npy", "a/c.npy", "a-b.npy"] {
            write(&path(name), &[1.0, -2.5]).unwrap();
        }
        let whole = fs::read(path("b.npy")).unwrap();
        assert_eq!(whole.len(), 128 + 8);
        fs::write(path("cut.npy"), &whole[..whole.len() - 1]).unwrap();
        fs::write(path("head.npy"), &whole[..20]).unwrap();
        fs::write(path("text.npy"), "no").unwrap();
        let double = String::from_utf8_lossy(&whole[10..127]).replace("<f4", "<f8");
        fs::write(path("double.npy"), [&whole[..10], double.as_bytes(), &whole[127..]].concat()).unwrap();
        write(&path("nan.npy"), &[1.0, f32::NAN]).unwrap();
        write(&path("wide.npy"), &[1.0; 3]).unwrap();
        fs::write(path("other.txt"), "").unwrap();
        let found = read_folder(folder.path()).unwrap();
        let names: Vec<&str> = found.features.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a-b", "a/c", "b"]);
        assert!(found.features.iter().all(|(_, feature)| feature == &[1.0, -2.5]));
        let told: Vec<String> = found.damaged.iter().map(Error::to_string).collect();
        let reasons = ["cut.npy: 7 bytes", "double.npy: its numbers", "head.npy: the file is cut off"];
        let more = ["nan.npy: number 1", "text.npy: not a file of NumPy's", "wide.npy: 3 numbers"];
        assert_eq!(told.len(), 6);
        for (told, reason) in told.iter().zip(reasons.iter().chain(&more)) {
            assert!(told.contains(reason), "{told}");
        }
    }
}
