//! Files that are whole or not there.
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// When a file has to have reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Before it gets its name, so that it is whole after a power failure.
    Now,
    /// When the system likes: it can be made again.
    Later,
}

/// Writes a file under a temporary name in the same folder, with the permissions that new files get, then renames it.
///
/// ```
/// use notation::files::{Flush, write_atomically};
/// use std::io::{self, Write};
///
/// let path = std::env::temp_dir().join("notation-files-example");
/// write_atomically::<io::Error>(&path, Flush::Later, |file| file.write_all(b"all of it"))?;
/// assert_eq!(std::fs::read(&path)?, b"all of it");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Errors
/// The disk's, or what `write` says; then the file is as it was.
pub fn write_atomically<E: From<io::Error>>(
    path: &Path,
    flush: Flush,
    write: impl FnOnce(&mut NamedTempFile) -> Result<(), E>,
) -> Result<(), E> {
    // A name may be as long as the system allows.
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
    // The umask takes from these permissions what the user's files do not get.
    let mut file = Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".part")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder(path))?;
    write(&mut file)?;
    if flush == Flush::Now {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes `to` the same file as `from`: a hard link where the file system allows it, else a copy.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    replace(to, |name| {
        if fs::hard_link(from, name).is_err() {
            fs::copy(from, name)?;
            fs::File::open(name)?.sync_all()?;
        }
        Ok(())
    })
}

/// Makes `path` a symbolic link to `target`, in place of what it was.
pub fn point(target: &Path, path: &Path) -> io::Result<()> {
    replace(path, |name| std::os::unix::fs::symlink(target, name))
}

/// Makes a file under another name in the same folder, then renames it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let folder = folder(path);
    fs::create_dir_all(folder)?;
    let scratch = Builder::new().prefix(".linking").tempdir_in(folder)?;
    let name = scratch.path().join("file");
    make(&name)?;
    // Renaming one link of a file onto another of the same file does nothing, and reports success.
    fs::rename(&name, path)
}

/// Writes a file that can be made again, whole or not at all. Its temporary name is always the same: among the files of a
/// corpus, what a killed run left half-written is overwritten by the next.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> crate::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(crate::Error::io(path))
}

/// Removes files; those that are not there are no error.
pub(crate) fn remove(files: &[PathBuf]) -> crate::Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(crate::Error::io(file)(error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_has_the_permissions_of_new_files_and_a_failed_one_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (usual, path) = (place.path().join("usual"), place.path().join("file"));
        fs::write(&usual, "").unwrap();
        for flush in [Flush::Now, Flush::Later] {
            write_atomically::<io::Error>(&path, flush, |file| file.write_all(b"whole")).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&usual));
        let broken = |file: &mut NamedTempFile| {
            file.write_all(b"half")?;
            Err(io::Error::other("broken"))
        };
        assert!(write_atomically::<io::Error>(&path, Flush::Now, broken).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }
}
