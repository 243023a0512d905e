//! The page, in the visitor's language.

use super::language::Language;

const TEMPLATE: &str = include_str!("page/page.html");
/// The little picture in the browser's tab.
pub(super) const ICON: &str = concat!(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">"##,
    r##"<path fill="#2e7d32" d="M2 15V7a6 6 0 0 1 12 0v8h-5V8H7v7z"/></svg>"##
);

/// Placeholder, English, Russian.
const WORDS: [(&str, &str, &str); 26] = [
    ("lang", "en", "ru"),
    ("title", "Greenhouse 1", "Теплица 1"),
    ("connecting", "connecting…", "соединение…"),
    ("live", "live", "на связи"),
    ("lost", "no connection, trying again", "нет связи, повторяем"),
    ("temperature", "Temperature", "Температура"),
    ("humidity", "Humidity", "Влажность"),
    ("soil", "Soil moisture", "Влажность почвы"),
    ("light", "Light", "Освещённость"),
    ("lux", "lx", "лк"),
    ("outside", "Outside", "Снаружи"),
    ("vent", "Vent", "Форточка"),
    ("shut", "Shut", "Закрыть"),
    ("open", "Open", "Открыть"),
    ("heater", "Heater", "Обогрев"),
    ("irrigation", "Irrigation", "Полив"),
    ("seconds", "s", "с"),
    ("minutes", "min", "мин"),
    ("stop", "Stop", "Стоп"),
    ("camera", "Camera", "Камера"),
    ("test", "Connection test", "Проверка связи"),
    ("upload", "Send a file", "Отправить файл"),
    ("on", "on", "включён"),
    ("off", "off", "выключен"),
    ("failed", "Failed", "Не удалось"),
    ("done", "Received", "Получено"),
];

/// The whole page.
pub(super) fn render(language: Language) -> String {
    let mut page = TEMPLATE.to_owned();
    for (name, english, russian) in WORDS {
        let word = match language {
            Language::English => english,
            Language::Russian => russian,
        };
        page = page.replace(&format!("{{{{{name}}}}}"), word);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_complete() {
        for (language, word) in [(Language::English, "Soil moisture"), (Language::Russian, "Влажность почвы")]
        {
            let page = render(language);
            assert!(!page.contains("{{"), "{language:?}: a placeholder is left");
            assert!(page.contains(word));
            assert!(page.contains(&format!("<html lang=\"{}\">", language.tag())));
        }
    }

    #[test]
    fn words_cannot_break_out_of_the_script() {
        for (name, english, russian) in WORDS {
            for word in [english, russian] {
                assert!(!word.contains(['"', '\\', '<', '&']), "{name}: {word}");
            }
        }
    }
}
