//! Enums whose variants can all be listed, so that nothing that goes through "all of them" can forget one.

/// Declares an enum of plain variants with `ALL`, in the order declared, and `as_str`, a word each.
#[macro_export]
macro_rules! enumerated {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Every one, in the order declared.
            $vis const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As a word.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    enumerated! {
        /// Of the test.
        enum Fruit {
            /// Red.
            Apple => "apple",
            /// Green.
            Pear => "pear",
        }
    }

    #[test]
    fn all_of_them_are_listed_with_their_words() {
        assert_eq!(Fruit::ALL, [Fruit::Apple, Fruit::Pear]);
        assert_eq!(Fruit::Pear.to_string(), "pear");
    }
}
