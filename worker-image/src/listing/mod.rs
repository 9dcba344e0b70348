//! take a few megabytes.
//!
//! | what | where |
//! | --- | --- |
//! | every file beneath a directory | [`walk`] |
//! | what nearly matched | [`nearest`] |
//! | more records than fit into memory are put in order | [`sort`] |

mod nearest;
pub mod sort;
pub mod walk;

/// A file of the input, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: String,
    pub url: Option<String>,
    /// In bytes.
    pub size: u64,
    /// Changes with the content (P28).
    pub version: String,
}
