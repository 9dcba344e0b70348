//! Amounts of bytes: as many as a model says that knows nothing of the parser, and written back as they were.

use hyperflow_api::quantity::Quantity;
use serde_json::Value;

/// The text of an amount, and the same as JSON.
pub fn amount(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        is_as_the_model_says(text);
    }
    let Ok(quantity) = serde_json::from_slice::<Quantity>(bytes) else { return };
    is_as_the_model_says(&quantity.to_string());
    match serde_json::from_slice::<Value>(bytes).expect("it was JSON") {
        Value::Number(number) => assert_eq!(quantity.to_string(), number.to_string()),
        Value::String(text) => assert_eq!(quantity.to_string(), text),
        other => panic!("{other} was read as {quantity}"),
    }
}

/// The amount, and that neither text nor JSON changes it.
pub fn is_as_the_model_says(text: &str) {
    let quantity = Quantity::from(text);
    let bytes = quantity.bytes().ok();
    if let Some(expected) = model(text) {
        assert_eq!(bytes, expected, "'{text}'");
    }
    assert_eq!(text.parse::<Quantity>().is_ok(), bytes.is_some());
    assert_eq!(quantity.to_string(), text);
    let json = serde_json::to_string(&quantity).expect("it is written");
    assert_eq!(serde_json::from_str::<Quantity>(&json).expect("what we write is read"), quantity, "{json}");
}

/// What the text means: no amount, or so many bytes. Nothing for numbers that the model cannot count with.
fn model(text: &str) -> Option<Option<u64>> {
    let suffix = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let number = &text[..text.len() - suffix.len()];
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let Some(unit) = unit(suffix) else { return Some(None) };
    if whole.len() + fraction.len() == 0 || fraction.len() > 18 || fraction.contains('.') {
        return Some(None);
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let exact = digits.checked_mul(unit)?;
    let rounded_up = exact.div_ceil(10_u128.pow(u32::try_from(fraction.len()).ok()?));
    Some(i64::try_from(rounded_up).ok().map(i64::cast_unsigned))
}

fn unit(suffix: &str) -> Option<u128> {
    let power = |letters: &str, letter: &str| Some(u32::try_from(letters.find(letter)?).ok()? + 1);
    match suffix.len() {
        0 => Some(1),
        1 => Some(1000_u128.pow(power("kMGTPE", suffix)?)),
        2 if suffix.is_char_boundary(1) && &suffix[1..] == "i" => Some(1024_u128.pow(power("KMGTPE", &suffix[..1])?)),
        _ => None,
    }
}
