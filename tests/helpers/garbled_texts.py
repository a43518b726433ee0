"""Texts of the generated pages in `garbled_pages`, written for this project."""

TEXTS = {
    "en": """The harbour master keeps a log of every ship that enters the bay. Each evening he climbs the tower and
lights the lamp, then writes the wind, the weather and the depth of the water into a large green book.
Visitors may read the book in the museum beside the old customs house, which opens at nine in the morning.
During the winter storms the boats stay behind the wall, and the fishermen mend their nets near the fire.
Nobody remembers a year without at least one wreck on the rocks south of the island.""",
    "de": """Die Gemeinde hat beschlossen, die alte Brücke über den Fluss im kommenden Jahr zu erneuern. Während der
Bauarbeiten fahren die Busse über die Nachbarstadt, und für Fußgänger wird ein schmaler Steg errichtet.
Die Kosten trägt zum größten Teil das Land, den Rest bezahlen die Anlieger über eine Abgabe auf Grundstücke.
Fragen beantwortet das Bauamt an jedem Werktag zwischen acht und zwölf Uhr, auch am Telefon.
Der Bürgermeister hofft, dass die neue Brücke noch vor dem ersten Schnee fertig wird.""",
    "fr": """La bibliothèque de la ville ouvre ses portes tous les jours sauf le lundi. Les lecteurs peuvent emprunter
cinq livres pendant trois semaines, et prolonger le prêt une fois si personne ne les demande.
Une salle du premier étage est réservée aux enfants, qui viennent y écouter des contes le mercredi après-midi.
Les journaux étrangers se trouvent près de la fenêtre, à côté des fauteuils rouges.
Il est interdit de manger dans les salles, mais un petit café accueille les visiteurs dans la cour.""",
    "es": """El mercado del pueblo se celebra cada sábado en la plaza mayor, delante de la iglesia. Los campesinos llegan
antes del amanecer con sus carros llenos de fruta, verdura, queso y flores de los jardines.
A mediodía suena la campana y los vendedores recogen las mesas para volver a casa antes del calor.
Los turistas compran recuerdos de madera y beben agua fresca en la fuente de piedra.
Este año el ayuntamiento ha plantado veinte árboles nuevos para dar sombra a los clientes.""",
    "fi": """Kaupungin uusi kirjasto avataan ensi keväänä vanhan tehtaan tiloihin. Rakennus on korjattu huolellisesti, ja
sen suurista ikkunoista näkee joelle sekä metsäiselle rannalle. Lukusaliin mahtuu kaksisataa asiakasta.
Talvella järvi jäätyy ja lapset luistelevat jäällä koulun jälkeen aina iltaan saakka.
Kesällä veneet kuljettavat matkailijoita saarille, joissa voi yöpyä pienissä mökeissä.
Illalla saunan jälkeen istutaan laiturilla ja kuunnellaan lintujen laulua hiljaisuudessa.""",
    "pl": """Stary zamek stoi na wzgórzu nad rzeką, a jego wieże widać z daleka. Wiosną ogrodnicy sadzą kwiaty wokół
dziedzińca, gdzie latem odbywają się koncerty i przedstawienia dla dzieci. Zwiedzanie trwa około godziny.
Przewodnik opowiada o królach, którzy mieszkali tutaj przed wiekami, oraz o skarbie ukrytym w piwnicy.
Bilety można kupić przy bramie albo w kasie obok dworca, codziennie oprócz poniedziałku.
Zimą zamek jest zamknięty, ponieważ ścieżki są śliskie i niebezpieczne dla turystów.""",
    "hu": """A város régi könyvtára a folyó partján áll, és minden nap reggel kilenckor nyit ki. Az olvasók három hétre
kölcsönözhetnek könyveket, amelyeket egyszer meg lehet hosszabbítani. A gyerekek szerdánként meséket hallgatnak.
Az udvaron kávézó működik, ahol nyáron zenészek játszanak a vendégeknek.""",
    "tr": """Eski şehrin dar sokaklarında küçük dükkânlar yan yana dizilmiştir. Sabahları fırından taze ekmek kokusu yayılır
ve çocuklar okula giderken kedilere yemek verir. Akşam olunca balıkçılar limana döner, ağlarını kıyıda onarır.
Yaz aylarında turistler kaleyi gezmek için uzun bir kuyrukta beklemek zorunda kalır.""",
    "nl": """De molen aan de rand van het dorp maalt nog elke week graan voor de bakker. Bezoekers mogen op zaterdag naar
boven klimmen en over de velden kijken. Als het hard waait, draaien de wieken zo snel dat de vloer begint te trillen.
De molenaar vertelt graag hoe zijn grootvader tijdens de storm de zeilen redde.""",
    "cs": """Na kraji lesa stojí malá hájovna, ve které bydlí starý myslivec se svým psem. Každé ráno vychází na pochůzku
a počítá stopy zvěře ve sněhu. Děti ze vsi mu nosí čerstvý chléb a on jim vypráví příběhy o medvědech a vlcích,
které slyšel od svého dědečka před mnoha lety.""",
    "vi": """Mỗi buổi sáng, những người bán hàng mang rau tươi và hoa quả ra chợ bên bờ sông. Trẻ em đi học bằng xe đạp
qua cây cầu gỗ cũ, còn người già ngồi uống trà dưới bóng cây và kể chuyện ngày xưa. Mùa mưa nước dâng cao,
thuyền nhỏ trở thành phương tiện đi lại duy nhất của cả làng.""",
    "id": """Setiap pagi para pedagang membawa sayuran segar ke pasar di tepi sungai. Anak-anak berangkat ke sekolah dengan
sepeda melewati jembatan kayu, sedangkan orang tua duduk minum kopi sambil bercerita tentang masa lalu.
Pada musim hujan jalan desa sering terendam banjir.""",
    "ru": """Старый маяк стоит на скале у входа в гавань. Каждый вечер смотритель поднимается по лестнице, зажигает лампу
и записывает погоду в большую книгу. Зимой корабли остаются за стеной, а рыбаки чинят сети у огня.
Летом в башне открыт музей, куда приходят школьники и туристы со всей страны.""",
    "el": """Ο παλιός φάρος στέκεται πάνω στον βράχο, στην είσοδο του λιμανιού. Κάθε βράδυ ο φύλακας ανεβαίνει τη σκάλα,
ανάβει το φως και γράφει τον καιρό σε ένα μεγάλο βιβλίο. Τον χειμώνα τα καράβια μένουν πίσω από τον τοίχο,
και οι ψαράδες φτιάχνουν τα δίχτυα τους κοντά στη φωτιά.""",
    "he": """המגדלור הישן עומד על הסלע בכניסה לנמל. כל ערב עולה השומר במדרגות, מדליק את המנורה וכותב את מזג האוויר
בספר גדול וירוק. בחורף נשארות הספינות מאחורי החומה והדייגים מתקנים את הרשתות ליד האש.""",
    "ar": """المنارة القديمة تقف على الصخرة عند مدخل الميناء وفي كل مساء يصعد الحارس الدرج ويشعل المصباح
ويكتب حالة الطقس في كتاب كبير وفي الشتاء تبقى السفن خلف الجدار ويصلح الصيادون الشباك قرب النار""",
    "zh": """港口的老灯塔建在岛屿南边的岩石上。每天晚上守塔人爬上楼梯点亮灯光，然后把天气和水深写进一本绿色的大书里。
冬天风暴来临的时候，渔船都停在防波堤后面，渔民们围着火炉修补渔网。夏天许多学生和游客到这里参观博物馆，
了解航海的历史。博物馆早上九点开门，下午五点关门，星期一休息。""",
    "ja": """港の古い灯台は島の南の岩の上に立っています。毎晩、灯台守は階段を上り、明かりをつけて、天気と水の深さを
大きな緑の本に書きます。冬の嵐の日には船は堤防の後ろに残り、漁師は火のそばで網を直します。
夏になると、多くの学生や観光客が博物館を見学に来ます。朝九時に開き、午後五時に閉まります。""",
}
"""Plain prose of about 60 words by language code."""

SAMPLES = {
    "numbers": "Quarter Revenue Costs Margin Staff\n"
    + "\n".join(
        f"{year} {1000 + 37 * step} {800 + 53 * step} {2057 - 61 * step} {140 + 9 * step} {31415 + 927 * step}"
        for step, year in enumerate(range(1998, 2020))
    ),
    "invoice": "Invoice 20481 of 17 March 2024\nCustomer number 993817, order 5520746\n"
    + "\n".join(
        f"Item {2304 + 11 * step} quantity {3 + step} price {18 + 7 * step}.{40 + 3 * step} "
        f"total {154 + 97 * step}.{60 + step}"
        for step in range(14)
    )
    + "\nSum 8120.35 due within 30 days to account 7026 4418 9035",
    "prose with numbers": "In 1987 the mill employed 348 people and produced 12560 tons of paper, twice as much as in 1974.\n"
    "The river rises 36 kilometres north of the town, at a height of 1409 metres, and has 27 bridges.\n"
    "After the flood of 2002, which damaged 658 houses, the council spent 19 million on 43 new walls.\n"
    "Today 7250 visitors come each year, 91 percent of them between May and October, and 604 stay overnight.",
    "code": "def read_lines(path, *, skip=0):\n    with open(path) as file:\n        for index, line in enumerate(file):\n"
    "            if index >= skip and line.strip() != '':\n                yield line.rstrip('\\n').split(',')\n\n"
    "class Tokenizer(object):\n    def __init__(self, vocab, max_len=512):\n        self.vocab = {v: k for k, v in vocab}\n"
    "        self._buf = bytearray(max_len << 2)\n\n    def __getitem__(self, idx):\n        return self.vocab[idx & 0xFF]\n\n"
    "struct stat st; if (fstat(fd, &st) != 0 || st.st_size > SSIZE_MAX) { errno = EFBIG; return -1; }\n"
    "for (size_t i = 0; i < n; i++) { dst[i] ^= src[i] >> 3; crc = tbl[(crc ^ dst[i]) & 0xff]; }\n"
    "grep -rn 'xmlns' ./src | awk '{print $2}' | sort -u > out.txt; chmod 0644 out.txt",
    "part numbers": "Part list of the gearbox\n"
    + "\n".join(
        f"{code}-{1020 + 17 * step}-{suffix} {name} {4 + step}x M{6 + step % 5}"
        for step, (code, suffix, name) in enumerate(
            [
                ("HX", "B", "shaft"),
                ("QZ", "RT", "bearing"),
                ("WKL", "X2", "bolt"),
                ("GR", "K9", "gear"),
                ("BXT", "ZZ", "seal"),
                ("SN", "LP", "nut"),
                ("VFD", "QX", "drive"),
                ("PWM", "TT", "board"),
                ("XLR", "FF", "plug"),
                ("DIN", "EN", "washer"),
                ("TKM", "SS", "spring"),
                ("NPT", "VB", "valve"),
            ]
        )
    ),
    "formulas": "Let f be continuous on [a, b]. Then F(x) = f(t) dt is differentiable and F'(x) = f(x).\n"
    "x = (-b ± (b² - 4ac)) / (2a), y = mx + c, e = mc², a² + b² = c², p = 2(a + b)\n"
    "sin²(x) + cos²(x) = 1, ln(xy) = ln x + ln y, (a + b)³ = a³ + 3a²b + 3ab² + b³\n"
    "|x| < d => |f(x) - L| < e; n! = n(n - 1)!; P(A|B) = P(B|A)P(A)/P(B); tr(AB) = tr(BA)\n"
    "v = ds/dt, F = ma, E = hf, pV = nRT, U = RI, P = UI, 1/f = 1/g + 1/b, W = Fs cos(a)",
    "bibliography": "[1] J. K. Wójcik and T. Nguyễn. Sparse codes for maps. Proc. ICGX, pp. 113-127, 2009.\n"
    "[2] R. Szczepański, B. Großmüller. LSTM vs. HMM in ASR. J. Mach. Intell. 14(3):55-71, 2013.\n"
    "[3] Q. Xu, Y. Zhang, H. Zhuang. GPU kernels for BLAS. arXiv:1709.04326, 2017.\n"
    "[4] M. Van der Bijl et al. Über die Gezeiten. Z. Phys. 88, 214-230, 1934. doi:10.1007/BF01342.\n"
    "[5] P. Kjærgaard. Fjord tides and fish. Nord. Hydrol. 7:1-19, 1976. ISBN 87-16-02211-4.",
    "acronyms": "Glossary of the network manual\nDHCP dynamic host configuration protocol\nXMPP messaging protocol\nSMTPS mail\n"
    "TLS, SSH, VPN, NAT, QoS, VLAN, MPLS, BGP, OSPF, RSTP, LACP, IGMP, SNMP, NTP, PTP, PoE, SFP, MDIX, CRC\n"
    "The RTSP and RTCP ports of the HVX20 NVR are set in the WebUI under NET/RTSP; see KB-20417 and RFC 2326.",
    "table of names": "Name Town Score\n"
    + "\n".join(
        f"{name} {town} {score}"
        for name, town, score in [
            ("Nguyen", "Huế", 17),
            ("Przybylski", "Łódź", 12),
            ("Mbeki", "Gqeberha", 9),
            ("Ng", "Kwai Tsing", 15),
            ("Krzysztof", "Szczecin", 8),
            ("Llywelyn", "Pwllheli", 11),
            ("Hrvoje", "Krk", 14),
            ("Ytterdal", "Bø", 6),
            ("Tshwete", "Mqanduli", 13),
            ("Wójtowicz", "Rzeszów", 10),
            ("Mxolisi", "Nqutu", 7),
            ("Björk", "Ísafjörður", 5),
        ]
    ),
    "leaders": "Contents\n"
    + "\n".join(
        f"{name} {'.' * 40} {page}"
        for name, page in [
            ("Introduction", 1),
            ("Method", 12),
            ("Materials and tools", 23),
            ("Results", 45),
            ("Discussion", 67),
            ("Outlook", 80),
            ("References", 91),
            ("Appendix", 104),
        ]
    ),
    "signs": "Legend: → next page, ← previous page, ★★★★☆ rating, ✓ done, ✗ open, § 12 (3) no. 4, † deceased, ‡ see note\n"
    "Prices: $ 12.50, € 11.40, £ 9.99, ¥ 1,480; +3 %, -7 ‰; 20 °C ± 2 K; No. 5 & 6 @ 3:1 (w/o tax) #17 ~ 40 %\n"
    "Phone +49 (0)30 / 123 45-67; e-mail info@example.org; https://example.org/a_b/c?d=e&f=%20g#h",
    "labels": "North\nSouth\nEurope\nRevenue\nCosts\nMargin\nProfit\nSpring\nSummer\nAutumn\nWinter\nSchool\nHarbour\nIsland\n"
    "Bread\nCheese\nFruit\nSugar\nCoffee\nWater\nFlour",
}
"""Pages with few plain words, by name."""
