//! Amounts of bytes, against a model that counts in 128 bits.

use hyperflow_api::quantity::Quantity;
use proptest::prelude::*;

use super::checks::quantity;

const UNITS: [&str; 13] = ["", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

proptest! {
    #[test]
    fn an_amount_is_as_many_bytes_as_it_says(
        whole in "[0-9]{0,12}",
        fraction in prop::option::of("[0-9]{0,10}"),
        unit in prop::sample::select(&UNITS[..]),
    ) {
        let text = match fraction {
            Some(fraction) => format!("{whole}.{fraction}{unit}"),
            None => format!("{whole}{unit}"),
        };
        quantity::is_as_the_model_says(&text);
        quantity::amount(format!("\"{text}\"").as_bytes());
    }

    #[test]
    fn large_numbers_are_exact_up_to_the_last_one(number in any::<u64>(), unit in prop::sample::select(&UNITS[..])) {
        for text in [format!("{number}{unit}"), format!("{}{unit}", number >> 30), format!("{}{unit}", number >> 60)] {
            quantity::is_as_the_model_says(&text);
        }
        let most = i64::MAX.cast_unsigned();
        prop_assert_eq!(Quantity::from(&*number.to_string()).bytes().ok(), (number <= most).then_some(number));
    }

    #[test]
    fn a_whole_number_of_units_is_never_rounded(number in 0_u32..1000, shift in 0_usize..6) {
        for (unit, base) in [(UNITS[1 + shift], 1000_u128), (UNITS[7 + shift], 1024)] {
            let exact = u128::from(number) * base.pow(u32::try_from(shift).unwrap() + 1);
            let expected = i64::try_from(exact).ok().map(i64::cast_unsigned);
            prop_assert_eq!(Quantity::from(&*format!("{number}{unit}")).bytes().ok(), expected);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9.kKMGTPEi+e -]{0,12}|\\PC{0,12}") {
        quantity::is_as_the_model_says(&text);
        quantity::amount(text.as_bytes());
    }

    #[test]
    fn a_number_of_json_is_read_as_it_stands(number in any::<i64>(), large in any::<u64>(), float in any::<f64>()) {
        quantity::amount(number.to_string().as_bytes());
        quantity::amount(large.to_string().as_bytes());
        quantity::amount(float.to_string().as_bytes());
    }
}
