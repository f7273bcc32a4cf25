//! Files that are whole or not there.
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Writes a file under a temporary name in the same folder, then renames it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = temporary(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Makes `to` the same file as `from`: a hard link where the file system allows it, else a copy.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    let folder = folder(to);
    fs::create_dir_all(folder)?;
    let scratch = tempfile::Builder::new().prefix(".publish").tempdir_in(folder)?;
    let name = scratch.path().join("file");
    if fs::hard_link(from, &name).is_err() {
        fs::copy(from, &name)?;
        fs::File::open(&name)?.sync_all()?;
    }
    // Renaming one link of a file onto another of the same file does nothing, and reports success.
    fs::rename(&name, to)
}

/// Makes `path` a symbolic link to `target`, in place of what it was.
pub fn point(target: &Path, path: &Path) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    let scratch = tempfile::Builder::new().prefix(".linking").tempdir_in(folder)?;
    let name = scratch.path().join("link");
    std::os::unix::fs::symlink(target, &name)?;
    fs::rename(&name, path)
}

fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder(path))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
