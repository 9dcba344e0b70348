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
