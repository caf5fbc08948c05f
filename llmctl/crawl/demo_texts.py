"""Pages of the demo site that are not in English, so that the language filter has work.

Articles of the Universal Declaration of Human Rights (1948), whose text may be used freely, in German, French and
Spanish. A line is a paragraph.
"""
# ruff: noqa: E501

from __future__ import annotations

GERMAN = """Artikel 1. Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.
Artikel 2. Jeder hat Anspruch auf die in dieser Erklärung verkündeten Rechte und Freiheiten ohne irgendeinen Unterschied, etwa nach Rasse, Hautfarbe, Geschlecht, Sprache, Religion, politischer oder sonstiger Überzeugung, nationaler oder sozialer Herkunft, Vermögen, Geburt oder sonstigem Stand.
Artikel 3. Jeder hat das Recht auf Leben, Freiheit und Sicherheit der Person.
Artikel 4. Niemand darf in Sklaverei oder Leibeigenschaft gehalten werden; Sklaverei und Sklavenhandel in allen ihren Formen sind verboten.
Artikel 5. Niemand darf der Folter oder grausamer, unmenschlicher oder erniedrigender Behandlung oder Strafe unterworfen werden.
Artikel 6. Jeder hat das Recht, überall als rechtsfähig anerkannt zu werden.
Artikel 7. Alle Menschen sind vor dem Gesetz gleich und haben ohne Unterschied Anspruch auf gleichen Schutz durch das Gesetz.
Artikel 8. Jeder hat Anspruch auf einen wirksamen Rechtsbehelf bei den zuständigen innerstaatlichen Gerichten gegen Handlungen, durch die seine ihm nach der Verfassung oder nach dem Gesetz zustehenden Grundrechte verletzt werden.
Artikel 9. Niemand darf willkürlich festgenommen, in Haft gehalten oder des Landes verwiesen werden.
Artikel 10. Jeder hat bei der Feststellung seiner Rechte und Pflichten in voller Gleichheit Anspruch auf ein gerechtes und öffentliches Verfahren vor einem unabhängigen und unparteiischen Gericht.
Artikel 13. Jeder hat das Recht, sich innerhalb eines Staates frei zu bewegen und seinen Aufenthaltsort frei zu wählen. Jeder hat das Recht, jedes Land, einschließlich seines eigenen, zu verlassen und in sein Land zurückzukehren.
Artikel 18. Jeder hat das Recht auf Gedanken-, Gewissens- und Religionsfreiheit; dieses Recht schließt die Freiheit ein, seine Religion oder Überzeugung zu wechseln.
Artikel 19. Jeder hat das Recht auf Meinungsfreiheit und freie Meinungsäußerung; dieses Recht schließt die Freiheit ein, Informationen und Gedankengut ohne Rücksicht auf Staatsgrenzen zu suchen, zu empfangen und zu verbreiten.
Artikel 23. Jeder hat das Recht auf Arbeit, auf freie Berufswahl, auf gerechte und befriedigende Arbeitsbedingungen sowie auf Schutz vor Arbeitslosigkeit.
Artikel 26. Jeder hat das Recht auf Bildung. Die Bildung ist unentgeltlich, zum mindesten der Grundschulunterricht. Der Grundschulunterricht ist obligatorisch.
Artikel 27. Jeder hat das Recht, am kulturellen Leben der Gemeinschaft frei teilzunehmen, sich an den Künsten zu erfreuen und am wissenschaftlichen Fortschritt und dessen Errungenschaften teilzuhaben."""

FRENCH = """Article premier. Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.
Article 2. Chacun peut se prévaloir de tous les droits et de toutes les libertés proclamés dans la présente Déclaration, sans distinction aucune, notamment de race, de couleur, de sexe, de langue, de religion, d'opinion politique ou de toute autre opinion, d'origine nationale ou sociale, de fortune, de naissance ou de toute autre situation.
Article 3. Tout individu a droit à la vie, à la liberté et à la sûreté de sa personne.
Article 4. Nul ne sera tenu en esclavage ni en servitude; l'esclavage et la traite des esclaves sont interdits sous toutes leurs formes.
Article 5. Nul ne sera soumis à la torture, ni à des peines ou traitements cruels, inhumains ou dégradants.
Article 6. Chacun a le droit à la reconnaissance en tous lieux de sa personnalité juridique.
Article 7. Tous sont égaux devant la loi et ont droit sans distinction à une égale protection de la loi.
Article 8. Toute personne a droit à un recours effectif devant les juridictions nationales compétentes contre les actes violant les droits fondamentaux qui lui sont reconnus par la constitution ou par la loi.
Article 9. Nul ne peut être arbitrairement arrêté, détenu ou exilé.
Article 10. Toute personne a droit, en pleine égalité, à ce que sa cause soit entendue équitablement et publiquement par un tribunal indépendant et impartial.
Article 13. Toute personne a le droit de circuler librement et de choisir sa résidence à l'intérieur d'un État. Toute personne a le droit de quitter tout pays, y compris le sien, et de revenir dans son pays.
Article 18. Toute personne a droit à la liberté de pensée, de conscience et de religion; ce droit implique la liberté de changer de religion ou de conviction.
Article 19. Tout individu a droit à la liberté d'opinion et d'expression, ce qui implique le droit de ne pas être inquiété pour ses opinions et celui de chercher, de recevoir et de répandre, sans considérations de frontières, les informations et les idées.
Article 23. Toute personne a droit au travail, au libre choix de son travail, à des conditions équitables et satisfaisantes de travail et à la protection contre le chômage.
Article 26. Toute personne a droit à l'éducation. L'éducation doit être gratuite, au moins en ce qui concerne l'enseignement élémentaire et fondamental. L'enseignement élémentaire est obligatoire.
Article 27. Toute personne a le droit de prendre part librement à la vie culturelle de la communauté, de jouir des arts et de participer au progrès scientifique et aux bienfaits qui en résultent."""

SPANISH = """Artículo 1. Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.
Artículo 2. Toda persona tiene todos los derechos y libertades proclamados en esta Declaración, sin distinción alguna de raza, color, sexo, idioma, religión, opinión política o de cualquier otra índole, origen nacional o social, posición económica, nacimiento o cualquier otra condición.
Artículo 3. Todo individuo tiene derecho a la vida, a la libertad y a la seguridad de su persona.
Artículo 4. Nadie estará sometido a esclavitud ni a servidumbre; la esclavitud y la trata de esclavos están prohibidas en todas sus formas.
Artículo 5. Nadie será sometido a torturas ni a penas o tratos crueles, inhumanos o degradantes.
Artículo 6. Todo ser humano tiene derecho, en todas partes, al reconocimiento de su personalidad jurídica.
Artículo 7. Todos son iguales ante la ley y tienen, sin distinción, derecho a igual protección de la ley.
Artículo 8. Toda persona tiene derecho a un recurso efectivo ante los tribunales nacionales competentes, que la ampare contra actos que violen sus derechos fundamentales reconocidos por la constitución o por la ley.
Artículo 9. Nadie podrá ser arbitrariamente detenido, preso ni desterrado.
Artículo 10. Toda persona tiene derecho, en condiciones de plena igualdad, a ser oída públicamente y con justicia por un tribunal independiente e imparcial.
Artículo 13. Toda persona tiene derecho a circular libremente y a elegir su residencia en el territorio de un Estado. Toda persona tiene derecho a salir de cualquier país, incluso del propio, y a regresar a su país.
Artículo 18. Toda persona tiene derecho a la libertad de pensamiento, de conciencia y de religión; este derecho incluye la libertad de cambiar de religión o de creencia.
Artículo 19. Todo individuo tiene derecho a la libertad de opinión y de expresión; este derecho incluye el de no ser molestado a causa de sus opiniones, el de investigar y recibir informaciones y opiniones, y el de difundirlas, sin limitación de fronteras.
Artículo 23. Toda persona tiene derecho al trabajo, a la libre elección de su trabajo, a condiciones equitativas y satisfactorias de trabajo y a la protección contra el desempleo.
Artículo 26. Toda persona tiene derecho a la educación. La educación debe ser gratuita, al menos en lo concerniente a la instrucción elemental y fundamental. La instrucción elemental será obligatoria.
Artículo 27. Toda persona tiene derecho a tomar parte libremente en la vida cultural de la comunidad, a gozar de las artes y a participar en el progreso científico y en los beneficios que de él resulten."""

TRANSLATIONS = {
    "de": ("Allgemeine Erklärung der Menschenrechte", GERMAN),
    "fr": ("Déclaration universelle des droits de l'homme", FRENCH),
    "es": ("Declaración Universal de Derechos Humanos", SPANISH),
}

ADVERT = "Win a free prize today! Click here to win a free prize today! " * 12
