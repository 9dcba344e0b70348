//! Listing the input before there is a plan. A million files take a few megabytes.
//!
//! | what | where |
//! | --- | --- |
//! | more records than fit into memory are put in order | [`sort`] |

pub mod sort;
