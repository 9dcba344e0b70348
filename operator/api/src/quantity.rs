//! Amounts as Kubernetes writes them: `67108864`, `64Mi`, `500m`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A Kubernetes quantity. Read from a number or a string, written back as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity(String);

/// A text that is no quantity, or none of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be a quantity such as 67108864, '64Mi' or '1Gi' (no space, no 'B')")]
pub struct QuantityError(String);

const SUFFIXES: [(&str, u64); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

impl Quantity {
    /// The amount in bytes, rounded up to a whole byte as Kubernetes rounds.
    ///
    /// # Errors
    /// When the text is no quantity, is negative, or is more than 2^63 - 1 bytes.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        let error = || QuantityError(self.0.clone());
        let (number, unit) = SUFFIXES
            .iter()
            .find_map(|(suffix, unit)| self.0.strip_suffix(suffix).map(|number| (number, *unit)))
            .ok_or_else(error)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
            return Err(error());
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| error())?);
        let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| error())? };
        let unit = u128::from(unit);
        let total = whole
            .checked_mul(unit)
            .and_then(|bytes| bytes.checked_add((part * unit).div_ceil(scale)))
            .ok_or_else(error)?;
        i64::try_from(total).map(i64::cast_unsigned).map_err(|_| error())
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let quantity = Self(text.into());
        quantity.bytes().map(|_| quantity)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<i64>() {
            // `007` and `-0` are numbers too, but would come back as others.
            Ok(number) if number.to_string() == self.0 => serializer.serialize_i64(number),
            _ => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 67108864, '64Mi' or '1Gi'")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": "isQuantity(string(self))",
                "message": "must be a quantity such as 67108864, '64Mi' or '1Gi' (no space, no 'B')",
                "reason": "FieldValueInvalid",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("67108864", 67_108_864),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("50M", 50_000_000),
            ("1k", 1000),
            (".5Ki", 512),
            ("0.1", 1),
            ("5Ti", 5 << 40),
        ] {
            assert_eq!(Quantity::from(text).bytes(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_of_bytes_is_refused() {
        for text in ["", "64 MB", "64MB", "-1", "Mi", ".", "1e999", "0x10", "9223372036854775808", "8Ei", "1.2.3"] {
            assert!(Quantity::from(text).bytes().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_strings_are_both_read() {
        let both: Vec<Quantity> = serde_json::from_str(r#"[67108864, "64Mi"]"#).unwrap();
        assert!(both.iter().all(|quantity| quantity.bytes() == Ok(64 << 20)));
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"[67108864,"64Mi"]"#);
    }
}
