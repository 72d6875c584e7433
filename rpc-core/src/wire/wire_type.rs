//! Whether a type can be decoded from a peer's bytes at a cost that those bytes bound: asked in the
//! tests of whoever declares it.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use std::any::type_name;
use std::cell::Cell;
use std::fmt;

/// Levels of a type that take no byte of their own, one within the other.
const MOST_FREE: usize = 64;
/// Collections within each other that are tried.
const DEPTH: usize = 6;
/// The same where a type reads whatever comes. Reading each level twice shows at this depth.
const DEEP: usize = 24;
/// Failed attempts at one body. Reading each level once takes a few for each of a type's variants.
const MOST_ATTEMPTS: usize = 200_000;
/// Values of one body.
const MOST_VALUES: usize = 20_000;
/// Each round begins with other fields and variants.
const ROUNDS: usize = 128;

thread_local! {
    static ATTEMPTS: Cell<usize> = const { Cell::new(0) };
    /// The name of the type that is tried.
    static TRIED: Cell<&'static str> = const { Cell::new("") };
}

/// Checks that bytes from a peer bound what decoding a `T` costs. To be called in a test of each type
/// that is a message, a reply, or a part of one.
///
/// The library looks at how deep and how wide a body is before anything decodes it, but not into types.
/// Two kinds of types get out of hand all the same. One contains itself without a collection in
/// between, as `struct W(Option<Box<W>>)` does: no body ends it, and the stack overflows. The other is
/// untagged, and tries several variants that contain it on the same bytes: each level of nesting
/// doubles the work, and sixty bytes take years.
///
/// The type is tried with values that lead into each of its fields and variants, six levels deep. A type
/// that calls itself inside of serde without asking for anything overflows the stack of the test.
///
/// # Panics
/// If decoding does not end, or takes too long.
///
/// ```
/// # use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Tree { value: u32, children: Vec<Tree> }
/// rpc_core::assert_wire_type::<Tree>();
/// ```
///
/// ```should_panic
/// # use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Endless(Option<Box<Endless>>);
/// rpc_core::assert_wire_type::<Endless>();
/// ```
#[expect(clippy::panic, reason = "it is an assertion")]
pub fn assert_wire_type<T: DeserializeOwned>() {
    TRIED.set(type_name::<T>());
    for round in 0..ROUNDS {
        let trial = Trial { round, values: Cell::new(0), endless: Cell::new(false) };
        ATTEMPTS.set(0);
        // Whether the value is one does not matter: nobody can say what a type wants of its texts.
        let _ = T::deserialize(Probe { trial: &trial, free: 0, depth: 0 });
        if trial.endless.get() {
            panic!(
                "{} contains itself without a collection in between: no bytes end it, and decoding overflows the stack",
                type_name::<T>()
            );
        }
    }
}

struct Trial {
    round: usize,
    values: Cell<usize>,
    endless: Cell<bool>,
}

impl Trial {
    /// One of `count` places, by the round and by where in the body it is.
    fn place(&self, count: usize) -> usize {
        let mixed = (self.round as u64).wrapping_mul(31).wrapping_add(self.values.get() as u64);
        let mixed = mixed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(mixed).unwrap_or(0).checked_rem(count).unwrap_or(0)
    }
}

/// Says yes to whatever a type asks for.
#[derive(Clone, Copy)]
struct Probe<'a> {
    trial: &'a Trial,
    /// Levels since the last one that takes a byte.
    free: usize,
    depth: usize,
}

#[derive(Debug)]
struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no further")
    }
}

impl std::error::Error for Stopped {}

impl de::Error for Stopped {
    #[expect(clippy::panic, reason = "nothing else ends what goes on inside of serde")]
    fn custom<M: fmt::Display>(_: M) -> Self {
        let attempts = ATTEMPTS.get().saturating_add(1);
        ATTEMPTS.set(attempts);
        if attempts > MOST_ATTEMPTS {
            panic!(
                "{} tries several of its variants on the same bytes, and each contains it again: every level of nesting multiplies the work",
                TRIED.get()
            );
        }
        Self
    }
}

impl<'a> Probe<'a> {
    /// A level that takes no byte.
    fn freely(self) -> Result<Self, Stopped> {
        let free = self.free.saturating_add(1);
        if free > MOST_FREE {
            self.trial.endless.set(true);
            return Err(Stopped);
        }
        Ok(Self { free, ..self })
    }

    /// What is in a collection.
    fn within(self) -> Result<Self, Stopped> {
        let values = self.trial.values.get().saturating_add(1);
        self.trial.values.set(values);
        if values > MOST_VALUES {
            return Err(Stopped);
        }
        Ok(Self { free: 0, depth: self.depth.saturating_add(1), ..self })
    }

    /// How many items a collection has that may have any number.
    fn items(self) -> usize {
        usize::from(self.depth < DEPTH)
    }
}

macro_rules! leaves {
    ($($method:ident $visit:ident $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stopped;

    leaves! {
        deserialize_bool visit_bool true;
        deserialize_i8 visit_i8 1;
        deserialize_i16 visit_i16 1;
        deserialize_i32 visit_i32 1;
        deserialize_i64 visit_i64 1;
        deserialize_i128 visit_i128 1;
        deserialize_u8 visit_u8 1;
        deserialize_u16 visit_u16 1;
        deserialize_u32 visit_u32 1;
        deserialize_u64 visit_u64 1;
        deserialize_u128 visit_u128 1;
        deserialize_f32 visit_f32 1.0;
        deserialize_f64 visit_f64 1.0;
        deserialize_char visit_char 'a';
        deserialize_str visit_str "a";
        deserialize_string visit_str "a";
        deserialize_identifier visit_str "a";
        deserialize_bytes visit_bytes &[1];
        deserialize_byte_buf visit_bytes &[1];
    }

    /// Nested lists: whatever is tagged by nothing can be read from them.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_seq(Nested(DEEP))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        if self.depth > DEPTH { visitor.visit_none() } else { visitor.visit_some(self.freely()?) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        visitor.visit_newtype_struct(self.freely()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_seq(Items { probe: self.within()?, left: self.items() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        visitor.visit_seq(Items { probe: self.within()?, left: length })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_map(Items { probe: self.within()?, left: self.items() })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        let (probe, first) = (self.within()?, self.trial.place(fields.len()));
        visitor.visit_map(Fields { probe, fields, first, next: 0 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        let probe = self.within()?;
        let name = variants.get(self.trial.place(variants.len())).copied();
        visitor.visit_enum(Variant { probe, name: name.unwrap_or("") })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// So many values, or keys with values.
struct Items<'a> {
    probe: Probe<'a>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Stopped;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stopped> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.probe).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_> {
    type Error = Stopped;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stopped> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stopped> {
        seed.deserialize(self.probe)
    }
}

/// The fields of a struct, each round from another one on: one that is not to be satisfied hides those
/// behind it.
struct Fields<'a> {
    probe: Probe<'a>,
    fields: &'static [&'static str],
    first: usize,
    next: usize,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Stopped;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stopped> {
        if self.next >= self.fields.len() {
            return Ok(None);
        }
        let place = self.first.saturating_add(self.next);
        let place = place.checked_rem(self.fields.len()).unwrap_or(0);
        self.next = self.next.saturating_add(1);
        let name = self.fields.get(place).copied().unwrap_or("");
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stopped> {
        seed.deserialize(self.probe)
    }
}

struct Variant<'a> {
    probe: Probe<'a>,
    name: &'static str,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Stopped;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stopped> {
        Ok((seed.deserialize(self.name.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Stopped;

    fn unit_variant(self) -> Result<(), Stopped> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stopped> {
        if self.probe.depth > DEPTH { Err(Stopped) } else { seed.deserialize(self.probe) }
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        if self.probe.depth > DEPTH {
            return Err(Stopped);
        }
        self.probe.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        if self.probe.depth > DEPTH {
            return Err(Stopped);
        }
        self.probe.deserialize_struct("", fields, visitor)
    }
}

/// Lists of one list each, so many.
struct Nested(usize);

impl<'de> SeqAccess<'de> for Nested {
    type Error = Stopped;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stopped> {
        let Some(deeper) = self.0.checked_sub(1) else { return Ok(None) };
        // There is one, and then none.
        self.0 = 0;
        seed.deserialize(Lists(deeper)).map(Some)
    }
}

struct Lists(usize);

impl<'de> Deserializer<'de> for Lists {
    type Error = Stopped;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_seq(Nested(self.0))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests;
