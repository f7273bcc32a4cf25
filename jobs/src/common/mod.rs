//! What every part of the program uses: failures, files, messages, this machine.
pub mod atomic;
pub mod digests;
pub mod failure;
pub mod loading;
pub mod lock;
pub mod machine;
pub mod near;
pub mod progress;
pub mod signals;
pub mod table;
