"""The words that sample ads are made of; every brand and shop is made up. Texts come in LANGUAGES order."""

from typing import NamedTuple

LANGUAGES = ("en", "de", "fr", "ja")


class Market(NamedTuple):
    """A market and how its ads differ."""

    language: str
    share: float
    """Of all ads."""
    currency: str
    price_factor: float
    """From the tables' dollars to the local price level."""
    bid_factor: float
    """Level of bids against the first market's."""
    shops: tuple[str, ...]
    """Retailers, beside the brands that advertise for themselves."""


MARKETS = {
    "us": Market("en", 0.40, "USD", 1, 1.0, ("Baymarrow", "Quillmart", "Oddfern Supply", "Tallgrove", "Hearthbarn")),
    "gb": Market("en", 0.16, "GBP", 0.85, 0.8, ("Penwhistle", "Larkstall", "Brindle & Moss", "Tidewick")),
    "de": Market("de", 0.16, "EUR", 0.95, 0.7, ("Kaufbrück", "Werkelfuchs", "Nordhafen24", "Sonnenlager")),
    "fr": Market("fr", 0.12, "EUR", 0.95, 0.6, ("Maison Tournelle", "Achatival", "Bricolune", "Clairmarché")),
    "in": Market("en", 0.10, "INR", 45, 0.15, ("Bazaarnest", "Dukanwala Online", "Lotuskart")),
    "jp": Market("ja", 0.06, "JPY", 130, 0.5, ("Minatoya", "Kazeichiba", "Hoshikura")),
}


class Department(NamedTuple):
    """Products that share brands, level of bids and turns of phrase."""

    bid: float
    """Median bid in dollars."""
    brands: tuple[str, ...]
    phrases: tuple[tuple[str, str, str, str], ...]
    """Sentences for descriptions."""


# fmt: off
DEPARTMENTS = {
    "Tools": Department(
        0.9, ("Torvik", "Hamlorn", "Drevox", "Ironfjell", "Bohrwind", "Calderic"),
        (("Built for daily use on site and at home.", "Für den täglichen Einsatz auf der Baustelle und zu Hause.",
          "Conçu pour un usage quotidien, sur chantier comme à la maison.", "現場でも家庭でも毎日使える丈夫な設計。"),
         ("Soft grip, low vibration, two-year warranty.", "Griffig und vibrationsarm, zwei Jahre Garantie.",
          "Prise en main souple, peu de vibrations, garantie deux ans.", "握りやすく低振動、2年保証付き。"))),
    "Kitchen": Department(
        0.6, ("Pellavie", "Brunnhof", "Sorrelle", "Kupfermond", "Ovenda", "Tamarisk & Rye"),
        (("Easy to clean, parts are dishwasher safe.", "Leicht zu reinigen, Teile spülmaschinenfest.",
          "Facile à nettoyer, pièces compatibles lave-vaisselle.", "お手入れ簡単、部品は食洗機対応。"),
         ("Quiet, compact and ready in minutes.", "Leise, kompakt und in Minuten bereit.",
          "Silencieux, compact et prêt en quelques minutes.", "静かでコンパクト、数分で準備完了。"))),
    "Home": Department(
        0.55, ("Linnwood", "Aldersten", "Fjordhus", "Maravelle", "Oakhurn", "Velourine"),
        (("Fits small rooms and large ones.", "Passt in kleine und große Räume.",
          "Trouve sa place dans les petites comme les grandes pièces.", "小さな部屋にも広い部屋にも合います。"),
         ("Free returns within 30 days.", "Kostenlose Rückgabe innerhalb von 30 Tagen.",
          "Retours gratuits sous 30 jours.", "30日以内の返品無料。"))),
    "Garden": Department(
        0.65, ("Grünhalm", "Thistledown", "Verdanox", "Mosswick", "Haselbach", "Ramblerose"),
        (("Weatherproof and easy to store in winter.", "Wetterfest und im Winter leicht zu verstauen.",
          "Résiste aux intempéries et se range facilement l'hiver.", "耐候性があり、冬の収納も簡単。"),
         ("For gardens, balconies and terraces.", "Für Garten, Balkon und Terrasse.",
          "Pour jardin, balcon et terrasse.", "庭、ベランダ、テラスに。"))),
    "Electronics": Department(
        1.1, ("Auralyn", "Voxtide", "Nimbrix", "Pixelorn", "Sonavik", "Halcyra"),
        (("Set up in two minutes with the free app.", "In zwei Minuten mit der kostenlosen App eingerichtet.",
          "Installation en deux minutes avec l'application gratuite.", "無料アプリで2分で設定完了。"),
         ("Long battery life and fast charging by USB-C.", "Lange Akkulaufzeit, schnelles Laden über USB-C.",
          "Grande autonomie et charge rapide par USB-C.", "長時間バッテリー、USB-C急速充電対応。"))),
    "Computing": Department(
        1.3, ("Kernova", "Tesselarc", "Bytewick", "Loricade", "Zephyrion", "Mirrorfen"),
        (("Tested with current systems, plug in and go.", "Mit aktuellen Systemen getestet: einstecken und los.",
          "Testé avec les systèmes actuels, branchez et c'est prêt.", "最新OSで動作確認済み、つなぐだけ。"),
         ("Three-year warranty and support by phone.", "Drei Jahre Garantie und Hilfe am Telefon.",
          "Garantie trois ans et assistance par téléphone.", "3年保証と電話サポート。"))),
    "Shoes": Department(
        0.7, ("Velmora", "Striderly", "Pacewren", "Corvanta", "Fennhill", "Solabrio"),
        (("Breathable upper and a cushioned sole.", "Atmungsaktives Obermaterial und gedämpfte Sohle.",
          "Tige respirante et semelle amortissante.", "通気性の良いアッパーとクッション性の高いソール。"),
         ("Size not right? Exchange it free of charge.", "Passt nicht? Umtausch kostenlos.",
          "Mauvaise pointure ? Échange gratuit.", "サイズが合わない場合は無料で交換。"))),
    "Clothing": Department(
        0.5, ("Marlowe Vane", "Tannelore", "Ellerby Row", "Sablière", "Northquill", "Indravas"),
        (("Machine washable, keeps its shape and colour.", "Maschinenwaschbar, form- und farbbeständig.",
          "Lavable en machine, garde sa forme et sa couleur.", "洗濯機で洗え、形も色も長持ち。"),
         ("New colours for the season.", "Neue Farben der Saison.", "Nouvelles couleurs de saison.",
          "今季の新色が登場。"))),
    "Sports": Department(
        0.75, ("Ridgeport", "Kinetorr", "Alpenzug", "Wavelark", "Trailbec", "Gymnara"),
        (("Light to carry, strong in use.", "Leicht zu tragen, stark im Einsatz.",
          "Léger à porter, solide à l'usage.", "軽くて持ち運びやすく、しっかり使える。"),
         ("For beginners and regulars alike.", "Für Einsteiger und Fortgeschrittene.",
          "Pour débutants comme pour habitués.", "初心者から経験者まで。"))),
    "Baby & Toys": Department(
        0.6, ("Wobblekin", "Pimpernella", "Kleinstern", "Doudoune & Cie", "Tiptoad", "Morimaru"),
        (("Free of harmful substances, safety tested.", "Schadstofffrei und sicherheitsgeprüft.",
          "Sans substances nocives, sécurité testée.", "有害物質不使用、安全検査済み。"),
         ("A gift that is used every day.", "Ein Geschenk, das jeden Tag gebraucht wird.",
          "Un cadeau qui sert tous les jours.", "毎日使えるギフトに。"))),
    "Pets": Department(
        0.55, ("Barkhollin", "Pfotenglück", "Whiskerlune", "Patounelle", "Furrow & Tail"),
        (("Recommended by vets and loved by pets.", "Von Tierärzten empfohlen, von Tieren geliebt.",
          "Recommandé par les vétérinaires, adopté par les animaux.", "獣医師おすすめ、ペットも大満足。"),
         ("Save ten percent with a subscription.", "Zehn Prozent sparen im Abo.",
          "Dix pour cent de remise avec l'abonnement.", "定期購入で10%お得。"))),
    "Beauty & Health": Department(
        0.85, ("Lumisève", "Dermovale", "Rosenquell", "Nerolind", "Asterveil", "Kohakuen"),
        (("Dermatologically tested, for sensitive skin too.",
          "Dermatologisch getestet, auch für empfindliche Haut.",
          "Testé dermatologiquement, convient aux peaux sensibles.", "皮膚科テスト済み、敏感肌にも。"),
         ("Order today, delivered tomorrow.", "Heute bestellt, morgen geliefert.",
          "Commandé aujourd'hui, livré demain.", "本日のご注文、明日お届け。"))),
    "Car & Bike": Department(
        0.95, ("Radvento", "Gearhollow", "Motorlind", "Cyclavère", "Tyrewright"),
        (("Fits most models, mounted without tools.", "Passt für die meisten Modelle, Montage ohne Werkzeug.",
          "Compatible avec la plupart des modèles, montage sans outil.",
          "ほとんどの車種に対応、工具なしで取り付け。"),
         ("Type approved and tested on the road.", "Zugelassen und auf der Straße geprüft.",
          "Homologué et testé sur route.", "認証取得済み、実走テスト済み。"))),
    "Services": Department(
        3.2, ("Clearpledge", "Rastvogel", "Bonvoyelle", "Quotewise Harbour", "Akarimichi", "Fairlantern"),
        (("Compare offers and save in five minutes.", "Angebote vergleichen und in fünf Minuten sparen.",
          "Comparez les offres et économisez en cinq minutes.", "5分で比較、かしこく節約。"),
         ("No hidden fees, cancel at any time.", "Keine versteckten Kosten, jederzeit kündbar.",
          "Sans frais cachés, résiliable à tout moment.", "手数料なし、いつでも解約可能。"))),
}
# fmt: on


class Product(NamedTuple):
    """A kind of product; names of equal meaning are parted by `/`."""

    department: str
    price: tuple[int, int]
    """In dollars; (0, 0) for what has no price in its ad."""
    details: str
    """Keys of DETAILS that its titles may name; `key=a/b` for these values only."""
    en: str
    de: str
    fr: str
    ja: str


# fmt: off
PRODUCTS = (
    Product("Tools", (49, 249), "voltage=12/18/20 batteries torque", "Cordless Drill/Drill Driver",
            "Akkuschrauber/Kabelloser Akku-Bohrschrauber", "Perceuse sans fil/Perceuse-visseuse", "コードレスドリル"),
    Product("Tools", (79, 299), "voltage=18/20 batteries", "Cordless Impact Driver", "Akku-Schlagschrauber",
            "Visseuse à chocs sans fil", "インパクトドライバー"),
    Product("Tools", (59, 229), "watts=1200/1500/1800", "Circular Saw", "Handkreissäge", "Scie circulaire", "丸ノコ"),
    Product("Tools", (39, 159), "watts=850/1200/1500", "Angle Grinder", "Winkelschleifer", "Meuleuse d'angle",
            "ディスクグラインダー"),
    Product("Tools", (29, 199), "pieces=48/100/216", "Socket Wrench Set/Tool Set",
            "Steckschlüsselsatz/Werkzeugkoffer", "Coffret de douilles/Mallette à outils", "工具セット"),
    Product("Tools", (15, 60), "metres=30/40", "Laser Measure/Distance Meter", "Laser-Entfernungsmesser",
            "Télémètre laser", "レーザー距離計"),
    Product("Tools", (45, 220), "metres=3.8 material=Aluminium/Steel", "Telescopic Ladder", "Teleskopleiter",
            "Échelle télescopique", "伸縮はしご"),
    Product("Tools", (89, 349), "bar=110/140/160", "Pressure Washer", "Hochdruckreiniger",
            "Nettoyeur haute pression", "高圧洗浄機"),
    Product("Kitchen", (39, 899), "colour bar=15/20", "Espresso Machine/Coffee Maker",
            "Espressomaschine/Kaffeemaschine", "Machine à expresso/Cafetière", "エスプレッソマシン/コーヒーメーカー"),
    Product("Kitchen", (59, 219), "litres=3.5/5/6.5 watts=1500/1800", "Air Fryer", "Heißluftfritteuse",
            "Friteuse sans huile", "ノンフライヤー"),
    Product("Kitchen", (19, 89), "litres=1.2/1.7 colour", "Electric Kettle", "Wasserkocher",
            "Bouilloire électrique", "電気ケトル"),
    Product("Kitchen", (29, 299), "pieces=5/10 material=Steel/Aluminium", "Cookware Set/Pots and Pans Set",
            "Topfset/Kochtopf-Set", "Batterie de cuisine/Lot de casseroles", "鍋セット"),
    Product("Kitchen", (19, 149), "centimetres=20", "Chef's Knife/Kitchen Knife", "Kochmesser/Küchenmesser",
            "Couteau de chef", "三徳包丁/シェフナイフ"),
    Product("Kitchen", (49, 449), "litres=3.5/5/6.5 colour=Black/White/Red", "Stand Mixer", "Küchenmaschine",
            "Robot pâtissier", "スタンドミキサー"),
    Product("Kitchen", (25, 139), "watts=600/850/1200 litres=1.2/1.7", "Blender/Smoothie Maker",
            "Standmixer/Smoothie-Maker", "Blender/Mixeur à smoothie", "ミキサー"),
    Product("Home", (149, 1499), "colour material=Linen/Cotton", "Corner Sofa/Sectional Couch",
            "Ecksofa/Wohnlandschaft", "Canapé d'angle", "コーナーソファ"),
    Product("Home", (79, 599), "bed", "Memory Foam Mattress", "Kaltschaummatratze", "Matelas à mémoire de forme",
            "低反発マットレス"),
    Product("Home", (19, 129), "colour material=Wood/Metal/Steel", "Floor Lamp", "Stehlampe", "Lampadaire",
            "フロアランプ"),
    Product("Home", (29, 349), "centimetres=120/160/200 colour", "Area Rug/Living Room Carpet",
            "Teppich/Wohnzimmerteppich", "Tapis de salon", "ラグ"),
    Product("Home", (59, 399), "minutes=90/120 colour=Black/White/Grey/Red", "Cordless Vacuum Cleaner",
            "Akku-Staubsauger", "Aspirateur balai sans fil", "コードレス掃除機"),
    Product("Home", (199, 799), "minutes", "Robot Vacuum with Mop", "Saugroboter mit Wischfunktion",
            "Robot aspirateur laveur", "ロボット掃除機"),
    Product("Home", (15, 89), "bed colour material=Cotton/Linen", "Duvet Cover Set/Bedding Set", "Bettwäsche-Set",
            "Housse de couette/Parure de lit", "布団カバーセット"),
    Product("Home", (25, 199), "centimetres=120/160/200 material=Wood/Metal", "Bookcase/Bookshelf", "Bücherregal",
            "Bibliothèque", "本棚"),
    Product("Garden", (99, 599), "voltage=36/40 centimetres=33/41", "Cordless Lawn Mower", "Akku-Rasenmäher",
            "Tondeuse à gazon sans fil", "充電式芝刈り機"),
    Product("Garden", (69, 799), "pieces=5 material=Wood/Metal/Aluminium", "Garden Furniture Set/Patio Set",
            "Gartenmöbel-Set", "Salon de jardin", "ガーデンファニチャーセット"),
    Product("Garden", (19, 79), "metres=15/25/30/40", "Garden Hose with Reel", "Gartenschlauch mit Trommel",
            "Tuyau d'arrosage avec enrouleur", "ホースリール"),
    Product("Garden", (129, 899), "colour=Black/Grey/Red", "Gas Grill/Barbecue", "Gasgrill", "Barbecue à gaz",
            "ガスグリル"),
    Product("Garden", (12, 49), "pack", "Solar Garden Lights", "Solar-Gartenleuchten", "Lampes solaires de jardin",
            "ソーラーガーデンライト"),
    Product("Garden", (49, 229), "voltage=18/36/40 centimetres=41/60", "Hedge Trimmer", "Heckenschere",
            "Taille-haie", "ヘッジトリマー"),
    Product("Electronics", (29, 399), "colour hours", "Noise Cancelling Headphones/Wireless Headphones",
            "Kopfhörer mit Geräuschunterdrückung/Bluetooth-Kopfhörer",
            "Casque à réduction de bruit/Casque Bluetooth", "ノイズキャンセリングヘッドホン"),
    Product("Electronics", (19, 199), "colour hours", "Wireless Earbuds", "Kabellose In-Ear-Kopfhörer",
            "Écouteurs sans fil", "ワイヤレスイヤホン"),
    Product("Electronics", (25, 249), "hours colour", "Bluetooth Speaker", "Bluetooth-Lautsprecher",
            "Enceinte Bluetooth", "Bluetoothスピーカー"),
    Product("Electronics", (199, 1999), "inches=43/55/65", "4K Smart TV", "4K-Fernseher/Smart-TV 4K",
            "Téléviseur 4K", "4Kテレビ"),
    Product("Electronics", (149, 999), "gigabytes colour", "Smartphone", "Smartphone", "Smartphone",
            "スマートフォン"),
    Product("Electronics", (59, 349), "colour hours", "Fitness Smartwatch", "Fitness-Smartwatch",
            "Montre connectée", "スマートウォッチ"),
    Product("Electronics", (39, 229), "pack=2/4", "Outdoor Security Camera", "Überwachungskamera für außen",
            "Caméra de surveillance extérieure", "屋外防犯カメラ"),
    Product("Electronics", (89, 699), "pixels", "Action Camera", "Action-Kamera", "Caméra sport", "アクションカメラ"),
    Product("Computing", (399, 1999), "inches=14/15.6 gigabytes=256/512/1000", "Laptop/Notebook", "Laptop/Notebook",
            "Ordinateur portable", "ノートパソコン"),
    Product("Computing", (129, 799), "inches=24/27/32", "Gaming Monitor/Computer Monitor",
            "Gaming-Monitor/Computerbildschirm", "Écran PC/Moniteur gaming", "ゲーミングモニター"),
    Product("Computing", (19, 159), "colour", "Mechanical Keyboard", "Mechanische Tastatur", "Clavier mécanique",
            "メカニカルキーボード"),
    Product("Computing", (12, 89), "colour", "Wireless Mouse", "Kabellose Maus", "Souris sans fil",
            "ワイヤレスマウス"),
    Product("Computing", (49, 299), "gigabytes=256/512/1000", "External SSD/Portable Hard Drive",
            "Externe SSD/Externe Festplatte", "SSD externe/Disque dur externe", "外付けSSD"),
    Product("Computing", (69, 399), "", "Wi-Fi 6 Router/Mesh Router", "WLAN-Router Wi-Fi 6/Mesh-Router",
            "Routeur Wi-Fi 6", "Wi-Fi 6ルーター"),
    Product("Computing", (59, 449), "", "All-in-One Printer/Laser Printer", "Multifunktionsdrucker/Laserdrucker",
            "Imprimante multifonction/Imprimante laser", "複合機プリンター"),
    Product("Computing", (14, 99), "pack=2/4 colour=Black", "Toner Cartridge/Ink Cartridge",
            "Tonerkartusche/Druckerpatrone", "Cartouche de toner/Cartouche d'encre", "トナーカートリッジ"),
    Product("Shoes", (39, 179), "person=Women/Men colour shoe_size", "Running Shoes", "Laufschuhe",
            "Chaussures de running", "ランニングシューズ"),
    Product("Shoes", (49, 229), "person=Women/Men colour shoe_size", "Waterproof Hiking Boots",
            "Wasserdichte Wanderschuhe", "Chaussures de randonnée imperméables", "防水トレッキングシューズ"),
    Product("Shoes", (29, 149), "person=Women/Men colour shoe_size", "Leather Sneakers", "Ledersneaker",
            "Baskets en cuir", "レザースニーカー"),
    Product("Shoes", (25, 99), "person=Women/Men colour shoe_size", "Sandals", "Sandalen", "Sandales", "サンダル"),
    Product("Shoes", (59, 249), "person=Women/Men colour shoe_size", "Chelsea Boots/Ankle Boots",
            "Chelsea-Boots/Stiefeletten", "Bottines", "ショートブーツ"),
    Product("Clothing", (39, 249), "person colour size", "Rain Jacket", "Regenjacke", "Veste imperméable",
            "レインジャケット"),
    Product("Clothing", (69, 349), "person colour size", "Down Jacket/Winter Coat", "Daunenjacke/Winterjacke",
            "Doudoune/Manteau d'hiver", "ダウンジャケット"),
    Product("Clothing", (12, 59), "person colour size", "Organic Cotton T-Shirt", "T-Shirt aus Bio-Baumwolle",
            "T-shirt en coton bio", "オーガニックコットンTシャツ"),
    Product("Clothing", (29, 119), "person colour size", "Slim Fit Jeans", "Slim-Fit-Jeans", "Jean slim",
            "スリムジーンズ"),
    Product("Clothing", (29, 189), "person colour size", "Merino Wool Sweater", "Merinopullover",
            "Pull en laine mérinos", "メリノウールセーター"),
    Product("Clothing", (25, 149), "colour size", "Summer Dress/Maxi Dress", "Sommerkleid/Maxikleid", "Robe d'été",
            "サマードレス"),
    Product("Sports", (15, 79), "colour", "Yoga Mat", "Yogamatte", "Tapis de yoga", "ヨガマット"),
    Product("Sports", (49, 399), "kilograms=10/20/24", "Adjustable Dumbbell Set", "Verstellbares Hantelset",
            "Haltères réglables", "可変式ダンベル"),
    Product("Sports", (79, 499), "people colour", "Camping Tent", "Campingzelt", "Tente de camping",
            "キャンプテント"),
    Product("Sports", (39, 249), "litres=20/35/50 colour", "Hiking Backpack", "Wanderrucksack/Trekkingrucksack",
            "Sac à dos de randonnée", "登山リュック"),
    Product("Sports", (199, 1299), "", "Folding Treadmill", "Klappbares Laufband", "Tapis de course pliable",
            "折りたたみランニングマシン"),
    Product("Sports", (39, 199), "colour", "Sleeping Bag", "Schlafsack", "Sac de couchage", "寝袋"),
    Product("Sports", (29, 149), "colour", "Tennis Racket", "Tennisschläger", "Raquette de tennis", "テニスラケット"),
    Product("Baby & Toys", (99, 799), "colour", "Baby Stroller/Pushchair", "Kinderwagen/Buggy", "Poussette",
            "ベビーカー"),
    Product("Baby & Toys", (79, 349), "colour", "Child Car Seat", "Kindersitz fürs Auto", "Siège auto enfant",
            "チャイルドシート"),
    Product("Baby & Toys", (15, 129), "pieces=24/48/100", "Wooden Building Blocks/Train Set",
            "Holzbausteine/Holzeisenbahn", "Cubes en bois/Train en bois", "木製積み木"),
    Product("Baby & Toys", (9, 49), "pieces=100/216/1000", "Jigsaw Puzzle", "Puzzle", "Puzzle", "ジグソーパズル"),
    Product("Baby & Toys", (19, 69), "pack", "Disposable Diapers", "Windeln", "Couches jetables", "紙おむつ"),
    Product("Pets", (25, 89), "kilograms=2/5/10/12", "Dry Dog Food/Grain-Free Dog Food", "Hundetrockenfutter",
            "Croquettes pour chien", "ドッグフード"),
    Product("Pets", (19, 69), "kilograms=2/5/10", "Cat Food with Salmon", "Katzenfutter mit Lachs",
            "Croquettes pour chat au saumon", "キャットフード"),
    Product("Pets", (29, 199), "centimetres=120/160 colour=Grey/Beige", "Cat Tree/Scratching Post", "Kratzbaum",
            "Arbre à chat", "キャットタワー"),
    Product("Pets", (19, 119), "size=S/M/L/XL colour=Grey/Beige/Blue", "Orthopaedic Dog Bed",
            "Orthopädisches Hundebett", "Panier orthopédique pour chien", "犬用ベッド"),
    Product("Beauty & Health", (29, 249), "colour=Black/White/Pink", "Electric Toothbrush",
            "Elektrische Zahnbürste", "Brosse à dents électrique", "電動歯ブラシ"),
    Product("Beauty & Health", (9, 79), "millilitres=30/50", "Vitamin C Serum/Face Serum",
            "Vitamin-C-Serum/Gesichtsserum", "Sérum à la vitamine C", "ビタミンC美容液"),
    Product("Beauty & Health", (8, 39), "millilitres=50/100/200", "Sunscreen SPF 50", "Sonnencreme LSF 50",
            "Crème solaire SPF 50", "日焼け止め SPF50"),
    Product("Beauty & Health", (19, 149), "watts=1800/2200 colour", "Hair Dryer", "Haartrockner/Föhn",
            "Sèche-cheveux", "ドライヤー"),
    Product("Beauty & Health", (29, 129), "", "Blood Pressure Monitor", "Blutdruckmessgerät", "Tensiomètre",
            "血圧計"),
    Product("Car & Bike", (299, 2499), "colour inches=27", "Electric Bike/E-Bike", "E-Bike/Elektrofahrrad",
            "Vélo électrique", "電動アシスト自転車"),
    Product("Car & Bike", (29, 149), "person colour size=S/M/L", "Bike Helmet", "Fahrradhelm", "Casque de vélo",
            "自転車ヘルメット"),
    Product("Car & Bike", (49, 249), "tyre", "All-Season Tyre/Winter Tyre", "Ganzjahresreifen/Winterreifen",
            "Pneu toutes saisons/Pneu hiver", "スタッドレスタイヤ"),
    Product("Car & Bike", (39, 249), "pixels", "Dash Cam", "Dashcam", "Caméra embarquée", "ドライブレコーダー"),
    Product("Car & Bike", (19, 99), "", "Phone Holder for Car", "Handyhalterung fürs Auto",
            "Support téléphone voiture", "車載スマホホルダー"),
    Product("Services", (0, 0), "city", "Cheap Flights", "Billige Flüge", "Vols pas chers", "格安航空券"),
    Product("Services", (0, 0), "city", "Hotel Deals", "Hotelangebote", "Offres d'hôtel", "ホテル予約"),
    Product("Services", (0, 0), "city", "Rental Cars", "Mietwagen", "Location de voiture", "レンタカー"),
    Product("Services", (0, 0), "", "Car Insurance Quotes", "Kfz-Versicherung im Vergleich", "Devis assurance auto",
            "自動車保険の見積もり"),
    Product("Services", (0, 0), "", "Fibre Broadband/Home Internet", "Glasfaser-Internet/DSL-Tarif",
            "Box internet fibre", "光回線"),
    Product("Services", (0, 0), "", "Online Language Course", "Online-Sprachkurs", "Cours de langue en ligne",
            "オンライン英会話"),
    Product("Services", (0, 0), "", "Web Hosting", "Webhosting", "Hébergement web", "レンタルサーバー"),
)
# fmt: on


class Detail(NamedTuple):
    """A value in a title: numbers put into a text, or words that each language has its own of."""

    values: str
    """Parted by spaces; for words, their English form."""
    en: str
    de: str
    fr: str
    ja: str
    """For numbers a text with `{}`; for words, in the order of `values`, parted by `/`."""


# fmt: off
DETAILS = {
    "voltage": Detail("12 18 20 36 40", "{}V", "{}V", "{} V", "{}V"),
    "batteries": Detail("2 3", "with {} Batteries", "mit {} Akkus", "avec {} batteries", "バッテリー{}個付き"),
    "torque": Detail("45 60 80", "{} Nm", "{} Nm", "{} Nm", "{}Nm"),
    "watts": Detail("600 850 1200 1500 1800 2200", "{}W", "{} Watt", "{} W", "{}W"),
    "bar": Detail("15 20 110 140 160", "{} bar", "{} bar", "{} bar", "{}気圧"),
    "litres": Detail("1.2 1.7 3.5 5 6.5 20 35 50", "{}L", "{} Liter", "{} L", "{}L"),
    "millilitres": Detail("30 50 100 200", "{} ml", "{} ml", "{} ml", "{}ml"),
    "metres": Detail("3.8 15 25 30 40", "{}m", "{} m", "{} m", "{}m"),
    "centimetres": Detail("20 33 41 60 120 160 200", "{} cm", "{} cm", "{} cm", "{}cm"),
    "inches": Detail("14 15.6 24 27 32 43 55 65", "{} inch", "{} Zoll", "{} pouces", "{}インチ"),
    "gigabytes": Detail("128 256 512 1000", "{} GB", "{} GB", "{} Go", "{}GB"),
    "kilograms": Detail("2 5 10 12 20 24", "{} kg", "{} kg", "{} kg", "{}kg"),
    "hours": Detail("24 30 40 60", "{} Hours Battery", "{} Stunden Akku", "autonomie {} heures", "{}時間再生"),
    "minutes": Detail("90 120 180", "{} min Runtime", "{} Min. Laufzeit", "autonomie {} min", "{}分稼働"),
    "pixels": Detail("1080p 2.7K 4K", "{}", "{}", "{}", "{}"),
    "pieces": Detail("5 10 24 48 100 216 1000", "{} Pieces", "{}-teilig", "{} pièces", "{}点"),
    "pack": Detail("2 4 6 12", "Pack of {}", "{}er-Pack", "lot de {}", "{}個セット"),
    "people": Detail("2 3 4 6", "for {} People", "für {} Personen", "{} personnes", "{}人用"),
    "tyre": Detail("195/65R15 205/55R16 225/45R17", "{}", "{}", "{}", "{}"),
    "shoe_size": Detail("37 38 39 40 41 42 43 44 45", "EU {}", "Gr. {}", "taille {}", "EU{}"),
    "size": Detail("XS S M L XL XXL", "Size {}", "Gr. {}", "taille {}", "{}サイズ"),
    "bed": Detail("90x200 140x200 160x200 180x200", "{} cm", "{} cm", "{} cm", "{}cm"),
    "colour": Detail("Black White Grey Blue Green Red Beige Pink", "Black/White/Grey/Blue/Green/Red/Beige/Pink",
        "schwarz/weiß/grau/blau/grün/rot/beige/rosa", "noir/blanc/gris/bleu/vert/rouge/beige/rose",
        "ブラック/ホワイト/グレー/ブルー/グリーン/レッド/ベージュ/ピンク"),
    "material": Detail("Wood Metal Steel Cotton Linen Aluminium",
        "Wood/Metal/Stainless Steel/Cotton/Linen/Aluminium", "Holz/Metall/Edelstahl/Baumwolle/Leinen/Aluminium",
        "bois/métal/acier inoxydable/coton/lin/aluminium", "木製/メタル/ステンレス/コットン/リネン/アルミ"),
    "person": Detail("Women Men Kids", "for Women/for Men/for Kids", "für Damen/für Herren/für Kinder",
        "pour femme/pour homme/pour enfant", "レディース/メンズ/キッズ"),
    "city": Detail("London Paris Berlin Tokyo Mumbai Lisbon Rome", "London/Paris/Berlin/Tokyo/Mumbai/Lisbon/Rome",
        "London/Paris/Berlin/Tokio/Mumbai/Lissabon/Rom", "Londres/Paris/Berlin/Tokyo/Bombay/Lisbonne/Rome",
        "ロンドン/パリ/ベルリン/東京/ムンバイ/リスボン/ローマ"),
}
# fmt: on
