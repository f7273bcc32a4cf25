//! What every part of the program uses: failures, files, messages, this machine.
pub mod digests;
pub mod failure;
pub mod files;
pub mod loading;
pub mod lock;
pub mod machine;
pub mod nearest;
pub mod progress;
pub mod signals;
pub mod table;
