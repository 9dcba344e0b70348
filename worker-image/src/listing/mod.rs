//! Listing the input before there is a plan: every file of a directory, or the lines of a manifest. A million files
//! take a few megabytes.
//!
//! | what | where |
//! | --- | --- |
//! | every file beneath a directory | [`walk`] |
//! | what a manifest lists | [`manifest`], by [`lines`] |
//! | what nearly matched | [`nearest`] |
//! | more records than fit into memory are put in order | [`sort`] |

mod lines;
pub mod manifest;
mod nearest;
pub mod sort;
pub mod walk;

/// A file of the input, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Relative to the directory that is listed, or to the mount of the volume that a manifest's file is on.
    pub path: String,
    /// As a manifest names it; the others are known by their path.
    pub url: Option<String>,
    /// In bytes.
    pub size: u64,
    /// Changes with the content (P28).
    pub version: String,
}
