//! The cluster as real processes. Linux only: that nothing is left behind is read in `/proc`.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod common;
#[cfg(test)]
mod quickstart;
