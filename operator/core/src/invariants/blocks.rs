//! What holds of copies of the input (P28 to P30).

use super::{Broken, hold};
use crate::blocks::Loads;

/// I7. Of a group whose replicas are dropped by our order, as many confirmed whole copies stay as are wanted.
///
/// # Errors
/// When fewer do.
pub fn enough_copies_stay(group: u32, left: usize, wanted: usize) -> Result<(), Broken> {
    hold("I7 enough copies stay", left >= wanted, || {
        format!("replicas of group {group} are dropped, and {left} copies of {wanted} stay")
    })
}

/// I37. A node that comes back fetches the blocks that differ, and nobody else fetches what it has: a tenth more at most.
///
/// # Errors
/// When more moved.
pub fn returns_move_what_differs(store: &str, moved: u64, differs: u64) -> Result<(), Broken> {
    hold("I37 returns move what differs", moved * 10 <= differs * 11, || {
        format!("'{store}' came back with {differs} bytes that differ, and {moved} moved")
    })
}

/// I33. What is reserved for loads is what is under way.
///
/// # Errors
/// When it is not.
pub(crate) fn reservations_add_up(loads: &Loads) -> Result<(), Broken> {
    let counted = loads.recount();
    hold("I33 reservations add up", loads.reserved() == (&counted.0, &counted.1), || {
        format!("{:?} are reserved, {counted:?} are under way", loads.reserved())
    })
}

/// I38. Of the zones that copies of a group are in, as many keep one as copies are wanted when replicas are dropped by our
/// order.
///
/// # Errors
/// When fewer do, and there were more.
pub fn copies_stay_apart(group: u32, left: usize, before: usize, wanted: usize) -> Result<(), Broken> {
    hold("I38 copies stay apart", left >= before.min(wanted), || {
        format!(
            "replicas of group {group} are dropped, and of {before} zones with copies {left} are left, of {wanted} wanted"
        )
    })
}
